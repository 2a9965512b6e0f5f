"""Time of the stages of a training step, for any config.

`python benchmarks/stages.py --config=configs/synthetic_bod.py` takes the flags of `vrl_jax.main`,
`--rounds`, `--json=PATH`, and `--trace=DIR` for a profiler trace of three steps. Clips are random;
no data are read.

Prefixes of the step, each one stage longer than the last, are compiled and timed in interleaved
rounds; the time of a stage is the difference of two prefixes. XLA fuses across stages, each prefix
writes its outputs, and only the complete step donates its state. A difference is therefore the time
that a stage adds, not the time that it would take separately, and may be slightly negative. Further
encoding by a method or a teacher is counted with the losses.
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

VIDEOS = 4096  # the size of the data set affects only schedules
Prefix = Callable[[TrainState, jax.Array], Any]


def make_prefixes(run: Experiment, program: Program) -> dict[str, Prefix]:
    """Return the prefixes of the upper level's step that do not change the state."""
    method = program.method

    def augment(train: TrainState, clips: jax.Array) -> jax.Array:
        key = view_keys(run.train.seed, train.step, method.levels)[0]
        rows = clips.reshape(-1, method.levels, *clips.shape[1:])[:, 0]
        return make_views(key, rows, method.views, run.augment)

    def encode(train: TrainState, clips: jax.Array) -> Any:
        views = augment(train, clips)
        variables = method.encoder(train.params, train.state)
        flat = views.reshape(-1, *views.shape[2:])
        network = run.encoder.module()
        features, changed = network.apply(variables, flat, True, mutable=["batch_stats"])
        return features.clip, changed

    def loss(train: TrainState, clips: jax.Array, params: Any = None) -> Any:
        noise = step_key(run.train.seed, "noise", train.step)
        params = train.params if params is None else params
        return method.loss(params, train.state, augment(train, clips), noise, train.step)

    def gradient(train: TrainState, clips: jax.Array) -> Any:
        differentiate = jax.value_and_grad(lambda params: loss(train, clips, params), has_aux=True)
        return differentiate(train.params)

    return {
        "augmentation": augment,
        "encoder, forward": encode,
        "heads, losses, teacher": loss,
        "backward": gradient,
    }


def compile_prefixes(run: Experiment, program: Program, mesh: Mesh) -> dict[str, Callable[[], Any]]:
    """Return a function for every prefix on random clips, with the complete step last."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=program.clips.shape, dtype=np.uint8)
    clips, upper_clips = shard_rows(mesh, pixels), shard_rows(mesh, pixels[: run.train.batch])
    state = program.init()
    functions = {
        name: call_prefix(compile_prefix(prefix, mesh), state, clips)
        for name, prefix in make_prefixes(run, program).items()
    }
    optimizer = run.optim.build(run.train.batch, program.horizon.steps)
    upper = program.method._replace(inner=None)
    step = make_step(upper, optimizer, run.augment, run.train.seed, mesh)
    functions["optimiser, update"] = repeat_step(step, program.init(), upper_clips)
    if program.method.inner:
        step = program.step.lower().compile()
        functions["lower level"] = repeat_step(step, program.init(), clips)
    return functions


def compile_prefix(prefix: Prefix, mesh: Mesh) -> Prefix:
    """Return a prefix that is compiled as the step is."""
    shardings = replicated_sharding(mesh), batch_sharding(mesh)
    return jax.jit(prefix, in_shardings=shardings, compiler_options=compiler_options(mesh))


def call_prefix(prefix: Prefix, state: TrainState, clips: jax.Array) -> Callable[[], Any]:
    """Return a function that waits for a prefix on the same state and clips."""
    return lambda: jax.block_until_ready(prefix(state, clips))


def repeat_step(step: Callable[..., Any], state: TrainState, clips: jax.Array) -> Callable[[], Any]:
    """Return a function that runs the next step, since a step donates its state."""

    def run_next() -> None:
        nonlocal state
        state, metrics = step(state, clips)
        jax.block_until_ready((state, metrics))

    return run_next


def stage_seconds(prefixes: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return the difference of each prefix to the one before, by round."""
    previous, stages = [0.0] * len(next(iter(prefixes.values()))), {}
    for name, seconds in prefixes.items():
        stages[name] = [a - b for a, b in zip(seconds, previous, strict=True)]
        previous = seconds
    return stages


def tabulate(run: Experiment, prefixes: dict[str, list[float]]) -> str:
    """Return the report in Markdown."""
    *_, step = prefixes.values()
    total = statistics.median(step)
    rows = [
        [
            name,
            rounds.format_spread([1e3 * x for x in seconds], ".1f"),
            f"{statistics.median(seconds) / total:.0%}",
            rounds.format_spread([1e3 * x for x in prefixes[name]], ".1f"),
        ]
        for name, seconds in stage_seconds(prefixes).items()
    ]
    lines = [
        f"{type(run.method).__name__}, {type(run.encoder).__name__}, {run.train.batch} videos, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}: {1e3 * total:.1f} ms per step",
        "",
        rounds.markdown_table(["", "ms", "share", "ms of the prefix"], rows),
    ]
    return "\n".join(lines)


def time_stages(run: Experiment, count: int, trace: str, path: pathlib.Path | None) -> None:
    """Time the prefixes, print the table, and write trace and numbers.

    Raises:
      ValueError: training would refuse the settings, or the state would be split.
    """
    if run.train.shard_state:
        raise ValueError("train.shard_state must be False, since stages share a state, got True")
    mesh = make_mesh()
    functions = compile_prefixes(run, make_program(run, VIDEOS, mesh), mesh)
    prefixes = rounds.interleave(functions, count)
    if trace:
        *_, step = functions.values()
        with jax.profiler.trace(trace):
            for _ in range(3):
                step()
    numbers = {"config": configs.run_identity(run), "prefixes": prefixes}
    numbers["stages"] = stage_seconds(prefixes)
    numbers["environment"] = provenance.describe_environment()
    rounds.publish(tabulate(run, prefixes), numbers, path)


def main(argv: list[str]) -> None:
    """Time the stages of the config in the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    enable_cache()
    values = flags.FLAGS
    path = pathlib.Path(values.json) if values.json else None
    try:
        run = command_line.config_from_flags()
        time_stages(run, values.rounds, values.trace, path)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":  # on import these flags would clash with those of `vrl_jax.preflight`
    flags.DEFINE_integer("rounds", 5, "Rounds in which each prefix is timed.")
    flags.DEFINE_string("trace", "", "Folder for a profiler trace of three steps.")
    flags.DEFINE_string("json", "", "Also write the numbers to this file.")
    app.run(main, flags_parser=command_line.parse_flags)
