"""The instructions of a compiled program, read from its text."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_NAME = r"%?([\w.\-]+)"
_COMPUTATION = re.compile(rf"^(ENTRY )?{_NAME} (?:\(.*\)|\{{)")
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?{_NAME} = |^(?:ROOT )?{_NAME} = ")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([\d,]*)([^}]*)\})?")
_CALLED = re.compile(r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count\D*"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"\((\d+)\)")
CONTROL = ("while", "conditional", "call", "async-start")  # they run the instructions of others


@dataclass(frozen=True)
class HloArray:
    """Type of an array.

    Attributes:
      dtype: name of the type, such as "bf16".
      dims: lengths of the dimensions.
      minor_to_major: the dimensions, fastest varying first.
      on_chip: whether it lies in the cores' own memory, as the TPU compiler decides.
    """

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...]
    on_chip: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        bits = 8 if self.dtype == "pred" else int(re.search(r"\d+", self.dtype)[0])
        return self.size * bits // 8


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: unique in the program.
      opcode: such as "fusion".
      outputs: the result's arrays; of a tuple its parts.
      operands: names of instructions.
      attributes: the line from the operands on.
    """

    name: str
    opcode: str
    outputs: tuple[HloArray, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that the instruction runs."""
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += re.findall(r"%?([\w.\-]+)", branches)
        return names


@dataclass(frozen=True)
class HloProgram:
    """A program.

    Attributes:
      entry: name of the computation that runs first.
      computations: instructions by computation, in order.
      instructions: all instructions by name.
    """

    entry: str
    computations: dict[str, list[Instruction]]
    instructions: dict[str, Instruction] = field(repr=False)

    def operands(self, instruction: Instruction) -> list[tuple[HloArray, ...]]:
        """Return the arrays of each operand."""
        producers = map(self.instructions.get, instruction.operands)
        return [producer.outputs for producer in producers if producer]

    def executed(self, loops: bool = True) -> Iterator[tuple[Instruction, int]]:
        """Yield each instruction that runs, with the number of times; a fusion is one instruction.

        All branches of a conditional count. A loop runs as often as the compiler says, or, as
        JAX's loops do, up to a constant in its condition; otherwise it counts once.

        Args:
          loops: whether the bodies of loops count as often as they run; otherwise once.
        """
        yield from self._run(self.entry, 1, loops)

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yield an instruction, or, of a fusion, its instructions."""
        if instruction.opcode != "fusion":
            yield instruction
            return
        for name in instruction.called:
            for inner in self.computations.get(name, ()):
                yield from self.inside(inner)

    def _run(self, name: str, times: int, loops: bool) -> Iterator[tuple[Instruction, int]]:
        for instruction in self.computations.get(name, ()):
            if instruction.opcode not in CONTROL:
                yield instruction, times
                continue
            trips = self._trips(instruction) if loops else 1
            for called in instruction.called:
                yield from self._run(called, times * trips, loops)

    def _trips(self, instruction: Instruction) -> int:
        """Return how often an instruction runs what it calls."""
        if trips := _TRIPS.search(instruction.attributes):
            return int(trips[1])
        condition = _CONDITION.search(instruction.attributes)
        body = self.computations.get(condition[1], []) if condition else []
        limits = [_CONSTANT.match(each.attributes) for each in body if each.opcode == "constant"]
        counts = [each for each in body if "direction=LT" in each.attributes]
        return int(limits[0][1]) if len(limits) == len(counts) == 1 and limits[0] else 1


def parse_program(text: str) -> HloProgram:
    """Read the text of a compiled program, `jax.stages.Compiled.as_text`."""
    entry = current = ""
    computations: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            if instruction := _parse_instruction(match[1] or match[2], line[match.end() :]):
                computations.setdefault(current, []).append(instruction)
        elif line.endswith("{") and (match := _COMPUTATION.match(line)):
            current = match[2]
            entry = current if match[1] else entry
    instructions = {each.name: each for body in computations.values() for each in body}
    return HloProgram(entry, computations, instructions)


def parse_arrays(text: str) -> tuple[HloArray, ...]:
    """Return the arrays in the text of a type."""
    arrays = []
    for dtype, dims, layout, tiles in _ARRAY.findall(text):
        lengths = tuple(int(dim) for dim in dims.split(",") if dim)
        order = tuple(int(dim) for dim in layout.split(",") if dim)
        order = order or tuple(range(len(lengths)))[::-1]
        arrays.append(HloArray(dtype, lengths, order, "S(1)" in tiles))
    return tuple(arrays)


def _parse_instruction(name: str, text: str) -> Instruction | None:
    """Parse `type opcode(operands), attributes`; None where the line is none."""
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    match = re.match(r"\s*([\w\-]+)\(", text[end:]) if end > 0 else None
    if not match:
        return None
    opened = end + match.end() - 1
    closed = _closing(text, opened)
    operands = tuple(re.findall(r"%([\w.\-]+)", text[opened:closed]))
    return Instruction(name, match[1], parse_arrays(text[:end]), operands, text[opened:])


def _closing(text: str, opened: int) -> int:
    """Return the position after the parenthesis that closes the one at `opened`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)
