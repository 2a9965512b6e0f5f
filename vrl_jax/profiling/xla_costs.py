"""What a compiled program needs of each chip, read from the program alone, and how long at least.

Nothing runs. Operations and bytes are those that the compiler counts in one chip's program; a loop
whose length it does not know counts once.
"""

import math
import re
from dataclasses import dataclass

import jax

from vrl_jax.profiling.devices import Chip

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
# How a TPU's compiler says what a program needs that does not fit: temporaries, or everything.
_TEMPORARIES = r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds"
_EVERYTHING = r"Used ([\d.]+)([KMGT]?) of"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip while the program runs.

    Attributes:
      arguments: what it is given.
      outputs: what it returns in memory of its own; a donated argument's is used again.
      temporaries: what it computes on the way, at the most at one time.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of it together."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclass(frozen=True)
class Collective:
    """All exchanges of one kind.

    With o the bytes that go into an exchange on each of the n chips that take part, a ring sends
    from each chip, for all-reduce 2 (n-1)/n o, for reduce-scatter and all-to-all (n-1)/n o, for
    all-gather, whose result has n o bytes, (n-1) o, and for collective-permute o.

    Attributes:
      kind: one of `KINDS`.
      count: how many there are.
      operands: bytes of each chip that go into them.
      sent: bytes that each chip sends.
    """

    kind: str
    count: int
    operands: float
    sent: float


@dataclass(frozen=True)
class Costs:
    """What one run of the program does on each chip.

    Attributes:
      flops: arithmetic operations.
      traffic: bytes between memory and cores.
      collectives: exchanges with other chips, by kind.
    """

    flops: float
    traffic: float
    collectives: tuple[Collective, ...]


@dataclass(frozen=True)
class Times:
    """The least seconds of a run on a chip: nothing reaches its peak, so that it takes longer.

    Attributes:
      compute: operations over the peak.
      memory: bytes over the bandwidth.
      communication: bytes sent over all links of a chip; slices smaller than a full torus have
        fewer links, and every exchange has a latency, which is left out.
    """

    compute: float
    memory: float
    communication: float

    @property
    def share(self) -> float:
        """Communication's part of the time, if it overlaps with nothing."""
        return self.communication / (self.communication + max(self.compute, self.memory))


def compiled_memory(compiled: jax.stages.Compiled) -> Memory:
    """Return what a program needs."""
    found = compiled.memory_analysis()
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )


def compiled_costs(compiled: jax.stages.Compiled, chips: int) -> Costs:
    """Return what a program does on each of so many chips."""
    found = compiled.cost_analysis()
    return Costs(
        found["flops"], found["bytes accessed"], list_collectives(compiled.as_text(), chips)
    )


def estimate_times(costs: Costs, chip: Chip) -> Times:
    """Return how long a program takes at least."""
    return Times(
        compute=costs.flops / chip.flops,
        memory=costs.traffic / chip.bandwidth,
        communication=sum(each.sent for each in costs.collectives) / chip.links,
    )


def list_collectives(text: str, chips: int) -> tuple[Collective, ...]:
    """Return the exchanges in a program's text; one that is split into parts counts once.

    Args:
      text: of the compiled program, `jax.stages.Compiled.as_text`.
      chips: how many run it.
    """
    found = {}
    for place, (result, kind, start, rest) in enumerate(_COLLECTIVE.findall(text)):
        channel = re.search(r"channel_id=(\d+)", rest)  # parts that overlap with others share it
        size = _result_bytes(result, kind if start else "")
        found[channel[0] if channel else place] = kind, *_moved(kind, size, _group(rest, chips))
    return tuple(
        Collective(kind, len(own), sum(o for o, _ in own), sum(s for _, s in own))
        for kind in KINDS
        if (own := [moved for name, *moved in found.values() if name == kind])
    )


def memory_from_error(error: jax.errors.JaxRuntimeError, arguments: int) -> Memory:
    """Return what a program needs whose compiler gave up for want of memory, by its words.

    Args:
      error: what the compiler said.
      arguments: bytes that the program is given on each chip.

    Raises:
      JaxRuntimeError: it gave up for another reason.
    """
    for pattern, known in (_TEMPORARIES, 0), (_EVERYTHING, arguments):
        if found := re.search(pattern, str(error)):
            rest = round(float(found[1]) * 2 ** _UNITS[found[2]]) - known
            return Memory(arguments=arguments, outputs=0, temporaries=rest, code=0)
    raise error


def _moved(kind: str, result: int, n: int) -> tuple[float, float]:
    """Return the bytes that go into an exchange of n chips and those that each of them sends."""
    operands = {"all-gather": result / n, "reduce-scatter": result * n}.get(kind, result)
    factor = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1}
    return operands, operands * factor.get(kind, (n - 1) / n)


def _result_bytes(shapes: str, started: str) -> int:
    """Return the size of a result, of which a started exchange's stands behind the operands."""
    sizes = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shapes)]
    if started == "collective-permute":
        return sizes[1]
    if started and started != "all-reduce":  # an all-reduce that starts has its results alone
        return sum(sizes[len(sizes) // 2 :])
    return sum(sizes)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(int(dim) for dim in dims.split(",") if dim) * bits // 8


def _group(rest: str, chips: int) -> int:
    """Return how many chips take part in an exchange, which its text tells in one of four ways."""
    groups = re.search(r"replica_groups=(.*)", rest)
    text = groups[1] if groups else ""
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    if counted := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(counted[1])
    if named := re.match(r"mesh\[(.*?)\] \{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])  # or of one a part, 'x':(2)4
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return chips
