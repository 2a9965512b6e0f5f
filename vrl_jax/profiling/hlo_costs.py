"""Operations, memory traffic and data layouts, counted from the instructions of a program.

GPU compilers report neither operations nor traffic of a program. Convolutions and matrix products
of cuDNN and cuBLAS are calls whose shapes are known.
"""

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from vrl_jax.profiling.hlo_program import HloArray, HloProgram, Instruction

_CUDNN = re.compile(r'custom_call_target="__cudnn\$conv(BackwardInput|BackwardFilter|)')
_CUBLAS = re.compile(r'custom_call_target="__cublas\$')
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_GROUPS = re.compile(r"(feature|batch)_group_count=(\d+)")
# They move nothing, or what they move is counted where it is used.
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "async-done", "copy-done",
)  # fmt: skip
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclass(frozen=True)
class Window:
    """The window of a convolution along one axis.

    Attributes:
      size: extent of the kernel.
      stride: between positions.
      low: padding before the input.
      lhs_dilate: distance of the input's elements, with zeros between them.
      rhs_dilate: distance of the kernel's elements.
    """

    size: int
    stride: int = 1
    low: int = 0
    lhs_dilate: int = 1
    rhs_dilate: int = 1


class Convolution(NamedTuple):
    """A convolution, or the forward convolution that a gradient belongs to.

    Attributes:
      image: input.
      kernel: weights.
      output: result.
      labels: names of the dimensions of the three.
      windows: by axis.
    """

    image: HloArray
    kernel: HloArray
    output: HloArray
    labels: tuple[str, str, str]
    windows: list[Window]

    @property
    def channels_last(self) -> bool:
        """Whether the input's channels vary fastest in memory."""
        return self.labels[0][self.image.minor_to_major[0]] == "f"

    @property
    def extent(self) -> str:
        """The kernel's extent, such as 1x3x3."""
        return "x".join(str(window.size) for window in self.windows)


@dataclass(frozen=True)
class Layouts:
    """How a program's convolutions are laid out in memory.

    Attributes:
      channels_last: convolutions whose fastest varying dimension is the channel, by the kernel's
        extent, such as "3x3".
      channels_first: the others.
      transposes: kernels that move an array into another layout.
      transposed: bytes that they write.
    """

    channels_last: dict[str, int]
    channels_first: dict[str, int]
    transposes: int
    transposed: int


def count_flops(program: HloProgram, loops: bool = True) -> int:
    """Return the operations of all convolutions and matrix products, two per multiply-add.

    Products with padding, and with the zeros of a dilation, do not count.

    Args:
      program: the program.
      loops: see `HloProgram.executed`.
    """
    return sum(
        times * _flops(program, inner)
        for instruction, times in program.executed(loops)
        for inner in program.inside(instruction)
    )


def count_traffic(program: HloProgram, loops: bool = True) -> int:
    """Return the bytes that all kernels read and write, each operand and each result once.

    Of an operand that is only sliced, the slices count; of a result that is updated in place, the
    update.

    Args:
      program: the program.
      loops: see `HloProgram.executed`.
    """
    return sum(times * _traffic(program, each) for each, times in program.executed(loops))


def find_layouts(program: HloProgram) -> Layouts:
    """Return the layouts of a program's convolutions; loops count once."""
    last, first, transposed = Counter(), Counter(), []
    for kernel, _ in program.executed(loops=False):
        for inner in program.inside(kernel):
            if convolution := _convolution(program, inner):
                counts = last if convolution.channels_last else first
                counts[convolution.extent] += 1
        transposed.append(_transposed(program, kernel))
    return Layouts(dict(last), dict(first), sum(map(bool, transposed)), sum(transposed))


def _flops(program: HloProgram, instruction: Instruction) -> int:
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1]
        return _product_flops(program, instruction, contracted.split(","))
    if instruction.opcode == "custom-call" and _CUBLAS.search(instruction.attributes):
        listed = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)[1]
        return _product_flops(program, instruction, listed.replace('"', "").split(","))
    if not (convolution := _convolution(program, instruction)):
        return 0
    image, kernel, output, labels, windows = convolution
    groups = {kind: int(count) for kind, count in _GROUPS.findall(instruction.attributes)}
    pairs = 1
    for axis, window in enumerate(windows):
        length, positions = (
            array.dims[names.index(str(axis))]
            for array, names in ((image, labels[0]), (output, labels[2]))
        )
        pairs *= _overlaps(length, positions, window)
    batch = image.dims[labels[0].index("b")] // groups.get("batch", 1)
    inputs, outputs = (kernel.dims[labels[1].index(axis)] for axis in "io")
    return 2 * batch * inputs * outputs * pairs


def _product_flops(program: HloProgram, instruction: Instruction, contracted: list[str]) -> int:
    left = program.operands(instruction)[0][0]
    length = math.prod(left.dims[int(axis)] for axis in contracted if axis)
    return 2 * instruction.outputs[0].size * length


def _convolution(program: HloProgram, instruction: Instruction) -> Convolution | None:
    """Return what a convolution or its gradient in cuDNN computes; None for other instructions."""
    cudnn = _CUDNN.search(instruction.attributes) if instruction.opcode == "custom-call" else None
    if not cudnn and instruction.opcode != "convolution":
        return None
    left, right = (arrays[0] for arrays in program.operands(instruction)[:2])
    result, kind = instruction.outputs[0], cudnn[1] if cudnn else ""
    arrays = {"BackwardInput": (result, right, left), "BackwardFilter": (left, result, right)}
    labels = _LABELS.search(instruction.attributes).groups()
    return Convolution(*arrays.get(kind, (left, right, result)), labels, _windows(instruction))


def _windows(instruction: Instruction) -> list[Window]:
    match = _WINDOW.search(instruction.attributes)
    fields = dict(re.findall(r"(\w+)=([\w\-]+)", match[1])) if match else {}
    parts = {name: text.split("x") for name, text in fields.items()}
    if "pad" in parts:
        parts["low"] = [text.split("_")[0] for text in parts.pop("pad")]
    names = {"size", "stride", "low", "lhs_dilate", "rhs_dilate"} & set(parts)
    axes = range(len(parts.get("size", ())))
    return [Window(**{name: int(parts[name][axis]) for name in names}) for axis in axes]


@functools.cache
def _overlaps(length: int, positions: int, window: Window) -> int:
    """Return the pairs of a position and a tap that meet an element of the input."""
    end = (length - 1) * window.lhs_dilate
    return sum(
        0 <= at <= end and at % window.lhs_dilate == 0
        for position in range(positions)
        for tap in range(window.size)
        for at in [position * window.stride + tap * window.rhs_dilate - window.low]
    )


def _traffic(program: HloProgram, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE:
        return 0
    operands = [sum(map(_moved, arrays)) for arrays in program.operands(instruction)]
    result = sum(map(_moved, instruction.outputs))
    if opcode == "dynamic-update-slice":
        return 2 * operands[1]
    if opcode in _SLICES:
        return 2 * result
    if opcode == "fusion":
        return _fusion_traffic(program, instruction, operands, result)
    return sum(operands) + result


def _moved(array: HloArray) -> int:
    return 0 if array.on_chip else array.bytes


def _fusion_traffic(
    program: HloProgram, fusion: Instruction, operands: list[int], result: int
) -> int:
    """Return the bytes of a fusion, whose parameters may be only sliced, or updated in place."""
    body = program.computations[fusion.called[0]]
    users: dict[str, list[Instruction]] = {}
    for each in body:
        for name in each.operands:
            users.setdefault(name, []).append(each)
    for each in body:
        if each.opcode == "parameter":
            index = int(re.match(r"\((\d+)\)", each.attributes)[1])
            used = users.get(each.name, [])
            if used and all(user.opcode in _SLICES for user in used):
                sliced = sum(user.outputs[0].bytes for user in used)
                operands[index] = min(operands[index], sliced)
            elif all(_updates(user, each.name) for user in used):
                operands[index] = 0
        if each.opcode == "dynamic-update-slice" and result:
            update = program.instructions[each.operands[1]].outputs[0]
            result += update.bytes - each.outputs[0].bytes
    return sum(operands) + result


def _updates(instruction: Instruction, name: str) -> bool:
    """Return whether an instruction overwrites a part of an operand."""
    return instruction.opcode == "dynamic-update-slice" and instruction.operands[0] == name


def _transposed(program: HloProgram, instruction: Instruction) -> int:
    """Return the bytes that a kernel transposes; products read any layout and count none."""
    if "kind=kCustom" in instruction.attributes:
        return 0
    return sum(
        inner.outputs[0].bytes
        for inner in program.inside(instruction)
        if inner.opcode in ("transpose", "copy") and _reorders(program, inner)
    )


def _reorders(program: HloProgram, instruction: Instruction) -> bool:
    """Return whether a transpose or copy moves elements in memory."""
    (source,), result = program.operands(instruction)[0], instruction.outputs[0]
    axes = re.search(r"dimensions=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in axes[1].split(",")] if axes else range(len(result.dims))
    before = [axis for axis in source.minor_to_major if source.dims[axis] > 1]
    after = [axes[axis] for axis in result.minor_to_major if result.dims[axis] > 1]
    return before != after
