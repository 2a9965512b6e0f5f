"""Pretrain, judge and tell: `python -m vrl_jax.main --config=configs/synthetic_bod.py`.

A config of an `Evaluation` judges what was trained before, see `vrl_jax.jobs.evaluation`.

Run the same command again to continue a run that was interrupted; a finished one is judged and
reported anew. Settings are overridden as `--config.optim.learning_rate=0.001`, the data set as
`--data="Prepared root=/data/k400"`. `--config.help` explains every setting, `--dry_run` checks and
compiles all, tells what the run would be and need, and stops.

It exits with 0 when the end was reached, with 1 and one line where something is wrong, and with 143
where it was asked to leave and saved.

Several hosts give the same command each, with `--distributed` where JAX finds its peers itself (TPU
slices, SLURM, ...), else with `--coordinator_address`, `--num_processes` and `--process_id`. They
share batches and checkpoints; the first of them writes all else.
"""

import hashlib
import importlib.util
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from vrl_jax import config as configs
from vrl_jax.config import Evaluation, Experiment
from vrl_jax.data import named
from vrl_jax.data.sources import VideoError
from vrl_jax.explain import explain
from vrl_jax.jobs.compilation import keep_compiled
from vrl_jax.jobs.evaluation import Judgement
from vrl_jax.jobs.pretraining import Pretraining
from vrl_jax.train.checkpoint import Changed

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of the run, or gs://bucket/folder; by default runs/ and a name."
)
_DATA = flags.DEFINE_string(
    "data", "", "Another data set than the config's: its class and fields, 'Prepared root=/data'."
)
_QUIET = flags.DEFINE_bool("quiet", False, "Show no progress bar.")
_ACCEPT = flags.DEFINE_bool(
    "accept_changes", False, "Continue a run although its config or data have changed since."
)
_WANDB = flags.DEFINE_string("wandb", "", "Project on Weights & Biases that gets the log, too.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes, found by JAX.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Host:port of process 0.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check, compile, tell what it would need; stop.")
_EXPLAIN = flags.DEFINE_bool("explain", False, "Explain every setting and stop: --config.help.")
flags.mark_flag_as_required("config")

# The config's file, or one of its keys, and what it is given.
_OF_CONFIG = re.compile(r"--?(?:no)?config(?:\.([\w.]+))?(?:=(.*))?", re.DOTALL)


def launch(command: Callable[[], None]) -> None:
    """Run a command that takes the flags of this one; see `spelt`."""

    def run(argv):
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at the level of INFO
        keep_compiled()
        if _EXPLAIN.value:
            _explain()
        else:
            command()

    sys.argv = spelt(sys.argv)  # where overrides are looked for, too
    app.run(run, flags_parser=parse)


def spelt(argv: list[str]) -> list[str]:
    """Return a command line as its flags know it.

    `--config.help` is `--explain`, `--config.key value` is `--config.key=value`, and
    `configs/x.py` is that file of the installed package where there is none here.
    """
    joined = []
    for each in argv:
        waiting = joined and (found := _OF_CONFIG.fullmatch(joined[-1])) and found[2] is None
        if waiting and not re.match("-[-a-z]", each):
            joined[-1] += f"={each}"
        else:
            joined.append("--explain" if each == "--config.help" else each)
    return [_found(each) for each in joined]


def _found(given: str) -> str:
    flag, _, path = given.partition("=")
    file = pathlib.Path(path.partition(":")[0])
    if flag != "--config" or file.exists() or file.parent != pathlib.Path("configs"):
        return given
    folder = pathlib.Path(importlib.util.find_spec("configs").origin).parent
    return f"{flag}={folder / path.partition('/')[2]}" if (folder / file.name).exists() else given


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; a config that is not there, or has not a key, ends all with one line."""
    overrides = dict(found.groups() for found in map(_OF_CONFIG.fullmatch, argv) if found)
    file, *arg = (overrides.pop(None, None) or "").split(":", 1)
    if file and not pathlib.Path(file).is_file():
        sys.exit(f"error: config must be a file, got {file!r}: there is none")
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError):  # so says ml_collections
        tree = runpy.run_path(file)["get_config"](*arg).to_dict()
        try:
            for path, value in overrides.items():
                _add(tree, path, value)
            configs.build(tree)
        except ValueError as error:
            sys.exit(f"error: {error}")
        raise


def _add(tree: dict[str, Any], path: str, value: str | None) -> None:
    """Put a value where there is none; raise `ValueError` where its path leads through another."""
    *parents, key = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ValueError(f"config.{path} is unknown: {name} is {tree!r}, and has no keys")
    tree.setdefault(key, value)


def _explain() -> None:
    try:
        print(explain(built(), shutil.get_terminal_size((100, 0)).columns))
    except ValueError as error:
        sys.exit(f"error: {error}")


def built() -> Experiment | Evaluation:
    """Return what the command line's config describes.

    Raises:
      ValueError: a setting that cannot be.
    """
    return configs.build(with_data(_CONFIG.value, _DATA.value))


def with_data(described: ml_collections.ConfigDict, data: str) -> dict[str, Any]:
    """Return the config with the data set that the command line names, if it names one.

    Raises:
      ValueError: there is no such data set, or it has no such field.
    """
    tree = described.to_dict()
    if data.strip():
        kind, *fields = shlex.split(data)
        tree["data"] = configs.describe(named.build(kind, fields)).to_dict()
    return tree


def default_workdir(path: str, experiment: Experiment | Evaluation) -> pathlib.Path:
    """Return `runs/<config name>-<hash of the settings>`: the same settings find their run."""
    digest = hashlib.sha256(json.dumps(configs.described(experiment), sort_keys=True).encode())
    return pathlib.Path("runs") / f"{pathlib.Path(path).stem}-{digest.hexdigest()[:8]}"


def start(
    experiment: Experiment | Evaluation, workdir: str | pathlib.Path
) -> Pretraining | Judgement:
    """Return the job of a config, checked.

    Raises:
      ValueError: it cannot work, or an evaluation is to go on under other settings.
    """
    if isinstance(experiment, Experiment):
        return Pretraining(experiment, workdir, _QUIET.value, _ACCEPT.value, _WANDB.value)
    if _WANDB.value:
        raise ValueError("Weights & Biases follow pretraining alone: leave --wandb out")
    if _ACCEPT.value:
        raise ValueError(
            "an evaluation that changes on the way is none: leave --accept_changes out"
        )
    return Judgement(experiment, workdir, _QUIET.value)


def join() -> None:
    """Meet the other processes, if the command line says that there are some.

    Raises:
      ValueError: it does not say where, or not enough.
    """
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    elif _PROCESSES.value is not None or _PROCESS.value is not None:
        raise ValueError(
            "num_processes and process_id are of processes that meet: pass "
            "--coordinator_address=HOST:PORT of the first as well"
        )


def work() -> bool:
    """Refuse what cannot work, run; return whether the end was reached.

    Raises:
      ValueError: a setting, data or a folder that cannot be.
      FloatingPointError: a loss that is not finite.
      VideoError: too many videos that cannot be read.
      OSError: what cannot be written.
    """
    join()
    experiment = built()
    workdir = _WORKDIR.value or default_workdir(
        config_flags.get_config_filename(flags.FLAGS["config"]), experiment
    )
    try:
        job = start(experiment, workdir)
    except Changed as error:
        raise Changed(f"{error}; --accept_changes continues all the same") from error
    if _DRY_RUN.value:
        print(job.plan())
        return True
    return job()


def fail(error: Exception) -> NoReturn:
    """End with one line; of several processes at once, for the others wait for this one."""
    logging.debug("Where the error came from:", exc_info=error)
    if jax.process_count() == 1:
        sys.exit(f"error: {error}")
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Work, and leave with what came of it."""
    try:
        finished = work()
    except (FloatingPointError, OSError, ValueError, VideoError) as error:
        fail(error)
    except Exception:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        os._exit(1)
    sys.exit(0 if finished else 128 + signal.SIGTERM)


if __name__ == "__main__":
    launch(main)
