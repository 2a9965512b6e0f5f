"""Memory, operations and communication of a compiled program, without running it.

Operations and bytes are the compiler's counts for the program of one chip; a loop of unknown length
counts once.
"""

import math
import re
from dataclasses import dataclass

import jax

from vrl_jax.profiling.device_specs import Chip

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
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
      flops: arithmetic operations.
      traffic: bytes between memory and cores.
      collectives: communication with other chips, by kind.
    """

    flops: float
    traffic: float
    collectives: tuple[Collective, ...]


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
    analysis = compiled.cost_analysis()
    return Costs(
        analysis["flops"], analysis["bytes accessed"], list_collectives(compiled.as_text(), chips)
    )


def estimate_times(costs: Costs, chip: Chip) -> Times:
    """Return lower bounds of the time of a program."""
    return Times(
        compute=costs.flops / chip.flops,
        memory=costs.traffic / chip.bandwidth,
        communication=sum(collective.sent for collective in costs.collectives) / chip.links,
    )


def list_collectives(text: str, chips: int) -> tuple[Collective, ...]:
    """Return the collectives in a program's text; one that is split into parts counts once.

    Args:
      text: of the compiled program, `jax.stages.Compiled.as_text`.
      chips: number of chips that run it.
    """
    by_channel = {}
    for index, (result, kind, start, rest) in enumerate(_COLLECTIVE.findall(text)):
        channel = re.search(r"channel_id=(\d+)", rest)  # shared by the parts of a collective
        size = _result_bytes(result, kind if start else "")
        moved = _moved_bytes(kind, size, _group_size(rest, chips))
        by_channel[channel[0] if channel else index] = kind, *moved
    return tuple(
        Collective(kind, len(members), sum(o for o, _ in members), sum(s for _, s in members))
        for kind in KINDS
        if (members := [moved for name, *moved in by_channel.values() if name == kind])
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


def _result_bytes(shapes: str, started: str) -> int:
    """Return the size of a result; that of an asynchronous start also lists the operands first."""
    sizes = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shapes)]
    if started == "collective-permute":
        return sizes[1]
    if started and started != "all-reduce":  # all-reduce-start lists its results only
        return sum(sizes[len(sizes) // 2 :])
    return sum(sizes)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(int(dim) for dim in dims.split(",") if dim) * bits // 8


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
