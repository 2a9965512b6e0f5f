"""Memory and cost of a training step compared with the specification of its chips."""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from vrl_jax.experiment import Experiment
from vrl_jax.profiling import xla_costs
from vrl_jax.profiling.device_specs import Chip, describe_limits
from vrl_jax.profiling.xla_costs import Costs, Memory, Times
from vrl_jax.train.sharding import device_bytes

GIB = 2**30


@runtime_checkable
class TracedStep(Protocol):
    """A training step before compilation, with the shapes of its arguments.

    Attributes:
      step: (state, clips) -> (state, metrics).
      state: shapes and shardings of the first argument.
      clips: shape and sharding of the second.
    """

    step: jax.stages.Traced
    state: Any
    clips: jax.ShapeDtypeStruct


@dataclass(frozen=True)
class StepReport:
    """Memory and cost of a compiled training step.

    Attributes:
      chips: number of chips that share the batch.
      kind: JAX's name of the chip.
      batch: global batch size in videos.
      microbatch: videos that are embedded at a time; 0 for all.
      dtype: of the encoder's computation; "" where not configurable.
      remat: whether the encoder rematerialises activations; None where not configurable.
      state: bytes per chip that do not depend on the batch size.
      memory: bytes per chip.
      capacity: bytes available per chip; None where unknown.
      seconds: compile time.
      costs: operations and traffic; None where the compiler ran out of device memory.
      times: lower bounds of the time; None without costs, or for an unknown chip.
    """

    chips: int
    kind: str
    batch: int
    microbatch: int
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
        """Whether the step fits the memory of a chip; None where its capacity is unknown."""
        if self.costs is None:
            return False
        return None if self.capacity is None else self.memory.total <= self.capacity

    @property
    def largest_per_chip(self) -> int:
        """Videos per chip that fit, if all memory except the state is proportional to them.

        That is so without micro-batches.
        """
        per_video = (self.memory.total - self.state) / (self.batch / self.chips)
        return max(0, math.floor((self.capacity - self.state) / per_video))


def analyze_step(
    program: TracedStep, experiment: Experiment, mesh: Mesh, chip: Chip | None
) -> StepReport:
    """Compile the training step of an experiment and return its memory and cost.

    Args:
      program: of the experiment.
      experiment: the configuration.
      mesh: the devices, which need not be attached.
      chip: specification of the devices, where known.
    """
    lowered, began = program.step.lower(), time.perf_counter()
    try:
        step = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        arguments = device_bytes((program.state, program.clips))
        memory, costs = xla_costs.memory_from_error(error, arguments), None
    else:
        memory, costs = xla_costs.compiled_memory(step), xla_costs.compiled_costs(step, mesh.size)
    return StepReport(
        chips=mesh.size,
        kind=mesh.devices.flat[0].device_kind,
        batch=experiment.train.batch,
        microbatch=experiment.train.microbatch,
        dtype=getattr(experiment.encoder, "dtype", ""),
        remat=getattr(experiment.encoder, "remat", None),
        state=device_bytes(program.state) + memory.code,
        memory=memory,
        capacity=chip.memory if chip else None,
        seconds=time.perf_counter() - began,
        costs=costs,
        times=xla_costs.estimate_times(costs, chip) if costs and chip else None,
    )


def tree_bytes(tree: Any) -> int:
    """Return the total bytes of the arrays, or shapes, in a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def format_report(report: StepReport) -> str:
    """Return the figures as a table, with the verdict."""
    per_chip = report.batch // report.chips
    lines = [
        f"{report.chips} x {report.kind}, {report.batch} videos per step, {per_chip} per chip; "
        f"compiled in {report.seconds:.0f} s",
        "",
        "per chip",
    ]
    for field in dataclasses.fields(Memory):
        lines.append(_row(field.name, getattr(report.memory, field.name) / 2**20, "MiB"))
    lines.append(_row("total memory", report.memory.total / 2**20, "MiB"))
    if report.costs:
        lines += _cost_rows(report.costs)
    if report.times:
        lines += ["", _format_times(report.times)]
    lines += describe_limits(report.kind, report.dtype)
    return "\n".join([*lines, "", format_verdict(report)])


def _row(name: str, value: float, unit: str) -> str:
    return f"  {name:18}{value:12,.2f} {unit}"


def _cost_rows(costs: Costs) -> list[str]:
    rows = [
        _row("operations", costs.flops / 1e9, "GFLOP per step"),
        _row("memory traffic", costs.traffic / 1e6, "MB per step"),
    ]
    if layouts := costs.layouts:
        last, first = (
            sum(each.values()) for each in (layouts.channels_last, layouts.channels_first)
        )
        rows.append(f"  {'convolutions':18}{last:9} channels-last, {first} channels-first")
        note = f"MB per step, {layouts.transposes} kernels"
        rows.append(_row("transposes", layouts.transposed / 1e6, note))
    for collective in costs.collectives:
        note = f"MB in, {collective.sent / 1e6:,.2f} MB sent, {collective.count} operations"
        rows.append(_row(collective.kind, collective.operands / 1e6, note))
    return rows


def _format_times(times: Times) -> str:
    return (
        "Lower bounds per step at the chip's published peaks: "
        f"{times.compute * 1e3:.2f} ms of computation, {times.memory * 1e3:.2f} ms of memory "
        f"traffic, {times.communication * 1e3:.2f} ms of communication ({times.share:.1%} of the "
        "time without overlap)."
    )


def format_verdict(report: StepReport) -> str:
    """Return a text that states whether a step fits and what to change."""
    if report.fits is None:
        return f"No verdict: the memory of {report.kind} is unknown."
    if report.fits:
        free, largest = report.capacity - report.memory.total, report.largest_per_chip
        text = f"Fits: {free / GIB:.2f} of {report.capacity / GIB:.2f} GiB are free."
        if report.microbatch:
            return text
        return (
            f"{text} About {largest} videos per chip would fit, "
            f"--config.train.batch={largest * report.chips}."
        )
    if report.capacity is None:
        reason = "the compiler ran out of device memory"
    else:
        excess = (report.memory.total - report.capacity) / GIB
        reason = f"exceeds the {report.capacity / GIB:.2f} GiB of a chip by {excess:.2f} GiB"
    return f"Does not fit: {reason}.\nOptions: {', or '.join(_options(report))}"


def _options(report: StepReport) -> list[str]:
    """Return changes that make a step fit, see `StepReport.largest_per_chip`."""
    options = ["--config.encoder.dtype=bfloat16"] if report.dtype == "float32" else []
    if report.remat is False:
        options.append("--config.encoder.remat=True")
    if report.microbatch:
        options.append("a smaller --config.train.microbatch")
    if report.microbatch or report.capacity is None:
        return [*options, "a smaller --config.train.batch", "more chips for the same batch"]
    largest, chips = report.largest_per_chip, report.chips
    if not largest:
        return [*options, "chips with more memory", "a smaller encoder: not one video fits"]
    sizes = [n for n in range(chips, largest * chips + 1, chips) if report.batch % n == 0]
    if sizes:
        options.append(f"--config.train.microbatch={sizes[-1]} (at 1.3 times the cost)")
    while report.batch > largest * chips:
        chips *= 2
    batch = f"--config.train.batch={largest * report.chips} (about {largest} videos per chip)"
    return [*options, batch, f"{chips} chips for the same batch"]
