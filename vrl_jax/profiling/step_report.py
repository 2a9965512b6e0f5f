"""What a training step needs against what its chips have, and what to change, in plain words."""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from vrl_jax.experiment import Experiment
from vrl_jax.profiling import xla_costs
from vrl_jax.profiling.devices import Chip
from vrl_jax.profiling.xla_costs import Costs, Memory, Times

GIB = 2**30


@runtime_checkable
class TracedStep(Protocol):
    """A training step before compilation, with the shapes of its arguments.

    Attributes:
      step: (state, clips) -> (state, metrics).
      state: shapes and placement of the first argument.
      clips: shape and placement of the second.
    """

    step: jax.stages.Traced
    state: Any
    clips: jax.ShapeDtypeStruct


@dataclass(frozen=True)
class StepReport:
    """What was found out about a step.

    Attributes:
      chips: how many share the batch.
      kind: what JAX calls one.
      batch: videos a step, over all chips.
      dtype: of the encoder's computation; "" where it has none.
      remat: whether the encoder computes blocks again for the gradient; None where it cannot.
      state: bytes on each chip that no smaller batch saves.
      memory: bytes on each chip.
      capacity: bytes that each chip has; None where that is unknown.
      seconds: that it took to compile.
      costs: what a step does; None where it could not be compiled for want of memory.
      times: how long that takes at least; None without costs, or of a chip that is not known.
    """

    chips: int
    kind: str
    batch: int
    dtype: str
    remat: bool | None
    state: int
    memory: Memory
    capacity: float | None
    seconds: float
    costs: Costs | None
    times: Times | None

    @property
    def fits(self) -> bool | None:
        """Whether a chip has the memory; None where its capacity is unknown."""
        if self.costs is None:
            return False
        return None if self.capacity is None else self.memory.total <= self.capacity

    @property
    def largest(self) -> int:
        """Videos a chip that fit if all but the state grows in proportion to them."""
        each = (self.memory.total - self.state) / (self.batch / self.chips)
        return max(0, math.floor((self.capacity - self.state) / each))


def analyze_step(
    program: TracedStep, experiment: Experiment, place: Mesh, chip: Chip | None
) -> StepReport:
    """Compile the step of an experiment and read what it needs.

    Args:
      program: of the experiment.
      experiment: what to train.
      place: the devices, which may be described ones.
      chip: their figures, where they are known.
    """
    lowered, began = program.step.lower(), time.perf_counter()
    try:
        step = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        given = tree_bytes(program.state) + tree_bytes(program.clips) // place.size
        memory, costs = xla_costs.memory_from_error(error, given), None
    else:
        memory, costs = xla_costs.compiled_memory(step), xla_costs.compiled_costs(step, place.size)
    return StepReport(
        chips=place.size,
        kind=place.devices.flat[0].device_kind,
        batch=experiment.train.batch,
        dtype=getattr(experiment.encoder, "dtype", ""),
        remat=getattr(experiment.encoder, "remat", None),
        state=tree_bytes(program.state) + memory.code,
        memory=memory,
        capacity=chip.memory if chip else None,
        seconds=time.perf_counter() - began,
        costs=costs,
        times=xla_costs.estimate_times(costs, chip) if costs and chip else None,
    )


def tree_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def format_report(finding: StepReport) -> str:
    """Return the figures as a table, with the verdict."""
    each = finding.batch // finding.chips
    lines = [
        f"{finding.chips} x {finding.kind}, {finding.batch} videos a step, {each} a chip; "
        f"compiled in {finding.seconds:.0f} s",
        "",
        "on each chip",
    ]
    for field in dataclasses.fields(Memory):
        lines.append(_row(field.name, getattr(finding.memory, field.name) / 2**20, "MiB"))
    lines.append(_row("memory", finding.memory.total / 2**20, "MiB in all"))
    if finding.costs:
        lines += _cost_rows(finding.costs)
    if finding.times:
        lines += ["", _estimate(finding.times)]
    return "\n".join([*lines, "", format_verdict(finding)])


def _row(name: str, value: float, unit: str) -> str:
    return f"  {name:18}{value:12,.2f} {unit}"


def _cost_rows(costs: Costs) -> list[str]:
    rows = [
        _row("operations", costs.flops / 1e9, "GFLOP a step"),
        _row("memory traffic", costs.traffic / 1e6, "MB a step"),
    ]
    for each in costs.collectives:
        note = f"MB in, {each.sent / 1e6:,.2f} MB sent, by {each.count} exchanges"
        rows.append(_row(each.kind, each.operands / 1e6, note))
    return rows


def _estimate(times: Times) -> str:
    return (
        "At the chip's published peaks a step takes at least "
        f"{times.compute * 1e3:.2f} ms to compute or {times.memory * 1e3:.2f} ms to move memory, "
        f"and {times.communication * 1e3:.2f} ms to communicate: {times.share:.1%} of the time if "
        "nothing overlaps."
    )


def format_verdict(finding: StepReport) -> str:
    """Return in plain words whether a step fits and what to change."""
    if finding.fits is None:
        return f"The memory of {finding.kind} is not known: nothing to compare with."
    if finding.fits:
        spare, most = finding.capacity - finding.memory.total, finding.largest
        return (
            f"Fits: {spare / GIB:.2f} of {finding.capacity / GIB:.2f} GiB are free. About {most} "
            f"videos a chip would fit, --config.train.batch={most * finding.chips}."
        )
    if finding.capacity is None:
        lack = "its compiler gave up for want of memory"
    else:
        more = (finding.memory.total - finding.capacity) / GIB
        lack = f"{more:.2f} GiB more than the {finding.capacity / GIB:.2f} GiB of a chip"
    return f"Does not fit: {lack}.\nChange: {', or '.join(_ways(finding))}"


def _ways(finding: StepReport) -> list[str]:
    """Return what makes a step fit, if all but the state shrinks with the videos of a chip."""
    ways = ["--config.encoder.dtype=bfloat16"] if finding.dtype == "float32" else []
    if finding.remat is False:
        ways.append("--config.encoder.remat=True")
    if finding.capacity is None:
        return [*ways, "a smaller --config.train.batch", "more chips for the same batch"]
    most, number = finding.largest, finding.chips
    if not most:
        return [*ways, "chips of more memory", "a smaller encoder: not one video fits"]
    while finding.batch > most * number:
        number *= 2
    batch = f"--config.train.batch={most * finding.chips} (about {most} videos a chip)"
    return [*ways, batch, f"{number} chips for the same batch"]
