"""Memory, operations and communication of a compiled program, without running it.

Operations and bytes are the compiler's counts for the program of one chip, where it has any; GPU
compilers have none, and they are counted from the program's text. A loop of unknown length counts
once.
"""

import math
import re
from dataclasses import dataclass

import jax

from vrl_jax.profiling import hlo_costs
from vrl_jax.profiling.device_specs import Chip
from vrl_jax.profiling.hlo_costs import Layouts
from vrl_jax.profiling.hlo_program import HloArray, HloProgram, parse_program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# The TPU compiler's messages for programs that do not fit, with their temporaries or total memory.
_TEMPORARIES = r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds"
_TOTAL = r"Used ([\d.]+)([KMGT]?) of"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True)
class Memory:
    """Memory of a running program, in bytes per chip.

    Attributes:
      arguments: inputs.
      outputs: results, except those in the memory of donated arguments.
      temporaries: peak of intermediate results.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclass(frozen=True)
class Collective:
    """All collective operations of one kind.

    With o operand bytes on each of n participating chips, a ring algorithm sends, per chip,
    2 (n-1)/n o for all-reduce, (n-1)/n o for reduce-scatter and all-to-all, (n-1) o for all-gather,
    whose result has n o bytes, and o for collective-permute.

    Attributes:
      kind: one of `KINDS`.
      count: number of operations.
      operands: total operand bytes per chip.
      sent: total bytes sent per chip.
    """

    kind: str
    count: int
    operands: float
    sent: float


@dataclass(frozen=True)
class Costs:
    """Costs of one run of the program, per chip.

    Attributes:
      flops: arithmetic operations; on GPU those of convolutions and matrix products.
      traffic: bytes between memory and cores.
      collectives: communication with other chips, by kind.
      layouts: of the convolutions; None except on GPU.
    """

    flops: float
    traffic: float
    collectives: tuple[Collective, ...]
    layouts: Layouts | None = None


@dataclass(frozen=True)
class Times:
    """Lower bounds of the time of a run on a chip, in seconds.

    Attributes:
      compute: operations divided by the peak.
      memory: traffic divided by the bandwidth.
      communication: bytes sent divided by the bandwidth of all links of a chip. Slices smaller than
        a full torus have fewer links, and latencies are ignored.
    """

    compute: float
    memory: float
    communication: float

    @property
    def share(self) -> float:
        """The share of communication in the total time, without overlap."""
        return self.communication / (self.communication + max(self.compute, self.memory))


def compiled_memory(compiled: jax.stages.Compiled) -> Memory:
    """Return the memory of a program."""
    analysis = compiled.memory_analysis()
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


def compiled_costs(compiled: jax.stages.Compiled, chips: int) -> Costs:
    """Return the costs of a program, per chip."""
    program, analysis = parse_program(compiled.as_text()), compiled.cost_analysis()
    collectives = list_collectives(program, chips)
    flops, traffic = hlo_costs.count_flops(program), hlo_costs.count_traffic(program)
    if not analysis:
        return Costs(flops, traffic, collectives, hlo_costs.find_layouts(program))
    # The compiler counts the body of every loop once.
    flops += analysis["flops"] - hlo_costs.count_flops(program, loops=False)
    traffic += analysis["bytes accessed"] - hlo_costs.count_traffic(program, loops=False)
    return Costs(flops, traffic, collectives)


def estimate_times(costs: Costs, chip: Chip) -> Times:
    """Return lower bounds of the time of a program."""
    return Times(
        compute=costs.flops / chip.flops,
        memory=costs.traffic / chip.bandwidth,
        communication=sum(collective.sent for collective in costs.collectives) / chip.links,
    )


def list_collectives(program: HloProgram, chips: int) -> tuple[Collective, ...]:
    """Return the collectives of a program; one that is split into parts counts once.

    Args:
      program: the compiled program.
      chips: number of chips that run it.
    """
    by_channel = {}
    for kernel, times in program.executed():
        for instruction in program.inside(kernel):
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            rest, started = instruction.attributes, kind != instruction.opcode
            size = _result_bytes(instruction.outputs, kind if started else "")
            moved = _moved_bytes(kind, size, _group_size(rest, chips))
            channel = re.search(r"channel_id=(\d+)", rest)  # shared by the parts of a collective
            name = channel[0] if channel else len(by_channel)
            by_channel[name] = kind, times, *(times * each for each in moved)
    return tuple(
        Collective(kind, *map(sum, zip(*members, strict=True)))
        for kind in KINDS
        if (members := [each for name, *each in by_channel.values() if name == kind])
    )


def memory_from_error(error: jax.errors.JaxRuntimeError, arguments: int) -> Memory:
    """Return the memory of a program that does not fit, from the compiler's error.

    Args:
      error: of the compiler.
      arguments: bytes of the program's arguments per chip.

    Raises:
      JaxRuntimeError: the error has another cause.
    """
    for pattern, included in (_TEMPORARIES, 0), (_TOTAL, arguments):
        if match := re.search(pattern, str(error)):
            temporaries = round(float(match[1]) * 2 ** _UNITS[match[2]]) - included
            return Memory(arguments=arguments, outputs=0, temporaries=temporaries, code=0)
    raise error


def _moved_bytes(kind: str, result: int, n: int) -> tuple[float, float]:
    """Return the operand bytes and the sent bytes, per chip, of a collective over n chips."""
    operands = {"all-gather": result / n, "reduce-scatter": result * n}.get(kind, result)
    factor = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1}
    return operands, operands * factor.get(kind, (n - 1) / n)


def _result_bytes(outputs: tuple[HloArray, ...], started: str) -> int:
    """Return the size of a result; that of an asynchronous start also lists the operands first."""
    sizes = [array.bytes for array in outputs]
    if started == "collective-permute":
        return sizes[1]
    if started and started != "all-reduce":  # all-reduce-start lists its results only
        return sum(sizes[len(sizes) // 2 :])
    return sum(sizes)


def _group_size(rest: str, chips: int) -> int:
    """Return the number of participating chips, which is written in one of four formats."""
    groups = re.search(r"replica_groups=(.*)", rest)
    text = groups[1] if groups else ""
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    if counted := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(counted[1])
    if axes_of_mesh := re.match(r"mesh\[(.*?)\] \{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes_of_mesh[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes_of_mesh[2])  # or a part, 'x':(2)4
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return chips
