"""Where the time of a training step goes, of any config.

`python benchmarks/stages.py --config=configs/synthetic_bod.py` takes the flags of `vrl_jax.main`,
`--rounds`, `--json=PATH`, and `--trace=DIR` for a profiler's trace of three steps. Clips are random
numbers; no data are read.

Growing prefixes of the step are compiled and timed in interleaved rounds; a stage is what its
prefix takes more than the one before. XLA fuses across stages, each prefix writes what it has found
and the whole step alone gives its state away, so a difference is what a stage adds and not what it
would take alone: a small one may be below zero. Encoding of views that a method or a teacher makes
further is counted with the losses.
"""

import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from jax.sharding import Mesh

from benchmarks import rounds
from vrl_jax import config as configs
from vrl_jax import flags as command_line
from vrl_jax.augment.clip_views import make_views
from vrl_jax.experiment import Experiment
from vrl_jax.pretraining.train_program import Program, make_program
from vrl_jax.train import provenance
from vrl_jax.train.compilation import enable_cache
from vrl_jax.train.sharding import (
    batch_sharding,
    compiler_options,
    make_mesh,
    replicated_sharding,
    shard_rows,
)
from vrl_jax.train.train_step import TrainState, make_step, step_key, view_keys

VIDEOS = 4096  # the set's size decides schedules alone
Prefix = Callable[[TrainState, jax.Array], Any]


def prefixes(run: Experiment, program: Program) -> dict[str, Prefix]:
    """Return the parts of the upper level's step that change no state, each with those before."""
    method = program.method

    def augment(train: TrainState, clips: jax.Array) -> jax.Array:
        key = view_keys(run.train.seed, train.step, method.levels)[0]
        rows = clips.reshape(-1, method.levels, *clips.shape[1:])[:, 0]
        return make_views(key, rows, method.views, run.augment)

    def encode(train: TrainState, clips: jax.Array) -> Any:
        views = augment(train, clips)
        variables = {"params": train.params["network"]["encoder"]}
        variables["batch_stats"] = train.state["stats"].get("encoder", {})
        flat = views.reshape(-1, *views.shape[2:])
        network = run.encoder.module()
        features, changed = network.apply(variables, flat, True, mutable=["batch_stats"])
        return features.clip, changed

    def loss(train: TrainState, clips: jax.Array, params: Any = None) -> Any:
        noise = step_key(run.train.seed, "noise", train.step)
        params = train.params if params is None else params
        return method.loss(params, train.state, augment(train, clips), noise, train.step)

    def gradient(train: TrainState, clips: jax.Array) -> Any:
        of = jax.value_and_grad(lambda params: loss(train, clips, params), has_aux=True)
        return of(train.params)

    return {
        "augmentation": augment,
        "encoder, forward": encode,
        "heads, losses, teacher": loss,
        "backward": gradient,
    }


def works(run: Experiment, program: Program, mesh: Mesh) -> dict[str, Callable[[], Any]]:
    """Return a call for every prefix, the whole step last, on random clips."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(256, size=program.clips.shape, dtype=np.uint8)
    clips, rows = shard_rows(mesh, drawn), shard_rows(mesh, drawn[: run.train.batch])
    state = program.init()
    placed = replicated_sharding(mesh), batch_sharding(mesh)

    def timed(prefix: Prefix) -> Callable[[], Any]:
        compiled = jax.jit(prefix, in_shardings=placed, compiler_options=compiler_options(mesh))
        return lambda: jax.block_until_ready(compiled(state, clips))

    made = {name: timed(prefix) for name, prefix in prefixes(run, program).items()}
    optimizer = run.optim.build(run.train.batch, program.horizon.steps)
    upper = program.method._replace(inner=None)
    step = make_step(upper, optimizer, run.augment, run.train.seed, mesh)
    made["optimiser, update"] = stepping(step, program.init(), rows)
    if program.method.inner:
        made["lower level"] = stepping(program.step.lower().compile(), program.init(), clips)
    return made


def stepping(step: Callable[..., Any], state: TrainState, clips: jax.Array) -> Callable[[], Any]:
    """Return a call that takes one step after the other: a step's state is given away."""

    def work() -> None:
        nonlocal state
        state, metrics = step(state, clips)
        jax.block_until_ready((state, metrics))

    return work


def stages(taken: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return what each prefix takes more than the one before, by round."""
    before, found = [0.0] * len(next(iter(taken.values()))), {}
    for name, seconds in taken.items():
        found[name] = [now - then for now, then in zip(seconds, before, strict=True)]
        before = seconds
    return found


def tabulate(run: Experiment, taken: dict[str, list[float]]) -> str:
    """Return the Markdown that tells a run."""
    *_, whole = taken.values()
    total = statistics.median(whole)
    rows = [
        [
            name,
            rounds.spread([1e3 * x for x in seconds], ".1f"),
            f"{statistics.median(seconds) / total:.0%}",
            rounds.spread([1e3 * x for x in taken[name]], ".1f"),
        ]
        for name, seconds in stages(taken).items()
    ]
    lines = [
        f"{type(run.method).__name__}, {type(run.encoder).__name__}, {run.train.batch} videos, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}: {1e3 * total:.1f} ms a step",
        "",
        rounds.table(["", "ms", "share", "ms with all before"], rows),
    ]
    return "\n".join(lines)


def examine(run: Experiment, count: int, trace: str, to: pathlib.Path | None) -> None:
    """Time the prefixes, print the table, write what is asked for.

    Raises:
      ValueError: what training refuses too.
    """
    mesh = make_mesh()
    calls = works(run, make_program(run, VIDEOS, mesh), mesh)
    taken = rounds.interleave(calls, count)
    if trace:
        *_, step = calls.values()
        with jax.profiler.trace(trace):
            for _ in range(3):
                step()
    numbers = {"config": configs.run_identity(run), "prefixes": taken, "stages": stages(taken)}
    numbers["environment"] = provenance.describe_environment()
    rounds.publish(tabulate(run, taken), numbers, to)


def start(argv: list[str]) -> None:
    """Parse, measure, print."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    enable_cache()
    given = flags.FLAGS
    path = pathlib.Path(given.json) if given.json else None
    try:
        run = configs.build(command_line.replace_data(given.config, given.data))
        examine(run, given.rounds, given.trace, path)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":  # imported, it has no flags: those of `vrl_jax.preflight` share names
    flags.DEFINE_integer("rounds", 5, "Times that each prefix is timed.")
    flags.DEFINE_string("trace", "", "Folder for a profiler's trace of three steps.")
    flags.DEFINE_string("json", "", "Also write the numbers to this file.")
    app.run(start)
