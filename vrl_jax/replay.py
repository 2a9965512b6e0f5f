"""Repeat the step at which a run became non-finite: `vrl replay runs/mine`.

A step is a pure function of the state before it, the data and the seed. The run is therefore
continued from its newest checkpoint, without saving, to the first step with a metric that is not
finite. The state before this step and its batch are kept in `replay/` in the run's folder; a second
call runs that step alone. `--locate` also names the first operation that makes NaN.

One process does this on all of its devices.
"""

import argparse
import contextlib
import math
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jax.extend.core import jaxpr_as_fun
from tqdm import tqdm

from vrl_jax import atomic_files
from vrl_jax.atomic_files import ConfigMismatch
from vrl_jax.data.video_dataset import VideoError
from vrl_jax.pretrained import load_experiment
from vrl_jax.pretraining.pretraining_run import Pretraining
from vrl_jax.pretraining.train_program import Program
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.compilation import enable_cache
from vrl_jax.train.quarantine import open_quarantine
from vrl_jax.train.train_step import TrainState


class Replay(NamedTuple):
    """A step that was repeated.

    Attributes:
      before: the state before it.
      clips: its batch, u8[b k t h w 3].
      after: the state after it.
      metrics: its metrics, by name.
    """

    before: TrainState
    clips: jax.Array
    after: TrainState
    metrics: dict[str, float]


def find_nonfinite(run: Pretraining, state: TrainState) -> Replay | None:
    """Train from a state to the first step with a metric that is not finite; None without one.

    Args:
      run: whose steps are repeated.
      state: on the run's devices; it is donated.

    Raises:
      VideoError: too many videos cannot be read.
    """
    start, step = int(state.step), run.program.step.lower().compile()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        limit = run.experiment.loader.max_failed
        quarantine = stack.enter_context(contextlib.closing(open_quarantine(folder, 0, limit)))
        batches = stack.enter_context(contextlib.closing(run.batches(start, quarantine)))
        for _ in tqdm(range(start, run.total_steps), "replay", unit="step", mininterval=1):
            clips, before = next(batches), jax.tree.map(jnp.copy, state)
            state, metrics = step(state, clips)
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not all(map(math.isfinite, values.values())):
                return Replay(before, clips, state, values)
    return None


def locate_nan(program: Program, state: TrainState, clips: jax.Array) -> str:
    """Return the first operation of a step that makes NaN, with its line; "" without one.

    It may be one whose NaN is masked afterwards.
    """
    step = jaxpr_as_fun(program.step.jaxpr)
    checked = jax.jit(checkify.checkify(step, errors=checkify.nan_checks))
    error, _ = checked(*jax.tree.leaves((state, clips)))
    cause = error.get_exception()
    if cause is None:
        return ""
    libraries = tuple(f"{Path(module.__file__).parent}/" for module in (jax, flax))
    frames = str(cause.traceback_info).splitlines()
    line = next((line for line in frames if not line.startswith(libraries)), "")
    return f"{str(cause).rstrip('.')}, at {line}"


def format_replay(replay: Replay) -> str:
    """Return a table of the metrics, and the arrays that the step has made non-finite."""
    lines = [f"  {name:24}{value:12.5g}" for name, value in replay.metrics.items()]
    broken = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path(replay.after)
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.isfinite(leaf).all()
    ]
    total = len(jax.tree.leaves(replay.after))
    listed = ", ".join([*broken[:5], *(["…"] if len(broken) > 5 else [])])
    lines.append(f"{len(broken)} of {total} arrays are not finite after it: {listed}")
    return "\n".join(lines)


def replay_run(path: str, locate: bool = False) -> str:
    """Repeat the first step of a run that is not finite, keep its inputs and return a report.

    Args:
      path: folder of the run.
      locate: also find the first operation that makes NaN.

    Raises:
      ValueError: it is not a run of pretraining, or its data or devices do not fit.
      VideoError: too many videos cannot be read.
    """
    experiment = load_experiment(path)
    # A run that was resumed with changes has a checkpoint of the settings before.
    run = Pretraining(experiment, path, quiet=True, accept_changes=True)
    folder = run.workdir.subfolder("replay")
    folder.local.mkdir(exist_ok=True)
    try:
        saved = Checkpoints(folder.checkpoints, 1, run.identity)
    except ConfigMismatch as error:
        raise ValueError(f"{folder.path} is of earlier settings of the run: delete it") from error
    with run.workdir, run.checkpoints, saved:
        state = run.program.init()
        sources = [each for each in (run.checkpoints, saved) if each.latest() is not None]
        if sources:
            state = max(sources, key=Checkpoints.latest).restore(state)
        start = int(state.step)
        if start >= run.total_steps:
            return f"the run is finished, with a checkpoint of step {start}: there is no step after"
        replay = find_nonfinite(run, state)
        if replay is None:
            return f"steps {start + 1} to {run.total_steps} are finite"
        saved.save(replay.before, 0.0)
        batch = folder / "batch.npz"
        atomic_files.write_npz(batch, {"clips": np.asarray(replay.clips)})
        number = int(replay.before.step) + 1
        lines = [
            f"step {number} of seed {experiment.train.seed} is not finite",
            format_replay(replay),
            f"the state before it is in {folder.checkpoints}, its batch in {batch}",
        ]
        if locate:
            where = locate_nan(run.program, replay.before, replay.clips)
            lines.append(where or "no operation makes NaN: a value overflows")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Repeat the step and print the report."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl replay", description=__doc__, formatter_class=form)
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--locate", action="store_true", help="name the operation that makes NaN")
    args = parser.parse_args(argv)
    enable_cache()
    try:
        print(replay_run(args.run, args.locate))
    except (ValueError, VideoError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
