"""Pretrain, judge and tell: `python -m vrl_jax.main --config=configs/synthetic_bod.py`.

A config of an `Evaluation` judges what was trained before, see `vrl_jax.jobs.evaluation`.

Run the same command again to continue a run that was interrupted; a finished one is judged and
reported anew. Settings are overridden as `--config.optim.learning_rate=0.001`, the data set as
`--data="Prepared root=/data/k400"`.

Several hosts give the same command each, with `--distributed` where JAX finds its peers itself (TPU
slices, SLURM, ...), else with `--coordinator_address`, `--num_processes` and `--process_id`. They
share batches and checkpoints; the first of them writes all else.
"""

import hashlib
import json
import pathlib
import shlex
import signal
import sys
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from vrl_jax import config as configs
from vrl_jax.config import Evaluation, Experiment
from vrl_jax.data import named
from vrl_jax.data.sources import VideoError
from vrl_jax.jobs.compilation import keep_compiled
from vrl_jax.jobs.evaluation import Judgement
from vrl_jax.jobs.pretraining import Pretraining
from vrl_jax.train.checkpoint import Changed

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of the run; by default runs/ and a name made from the config."
)
_DATA = flags.DEFINE_string(
    "data", "", "Another data set than the config's: its class and fields, 'Prepared root=/data'."
)
_QUIET = flags.DEFINE_bool("quiet", False, "Show no progress bar.")
_ACCEPT = flags.DEFINE_bool(
    "accept_changes", False, "Continue a run although its config or data have changed since."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes, found by JAX.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Host:port of process 0.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.mark_flag_as_required("config")


def with_data(described: ml_collections.ConfigDict, data: str) -> dict[str, Any]:
    """Return the config with the data set that the command line names, if it names one.

    Raises:
      ValueError: there is no such data set, or it has no such field.
    """
    tree = described.to_dict()
    if data:
        kind, *fields = shlex.split(data)
        tree["data"] = configs.describe(named.build(kind, fields)).to_dict()
    return tree


def default_workdir(path: str, experiment: Experiment | Evaluation) -> pathlib.Path:
    """Return `runs/<config name>-<hash of the settings>`: the same settings find their run."""
    digest = hashlib.sha256(json.dumps(configs.described(experiment), sort_keys=True).encode())
    return pathlib.Path("runs") / f"{pathlib.Path(path).stem}-{digest.hexdigest()[:8]}"


def start(experiment: Experiment | Evaluation, workdir: pathlib.Path) -> Pretraining | Judgement:
    """Return the job of a config, checked.

    Raises:
      ValueError: it cannot work, or an evaluation is to go on under other settings.
    """
    if isinstance(experiment, Experiment):
        return Pretraining(experiment, workdir, _QUIET.value, _ACCEPT.value)
    if _ACCEPT.value:
        raise ValueError(
            "an evaluation that changes on the way is none: leave --accept_changes out"
        )
    return Judgement(experiment, workdir, _QUIET.value)


def main(argv: list[str]) -> None:
    """Parse, refuse what cannot work, run."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at the level of INFO
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    keep_compiled()
    try:
        experiment = configs.build(with_data(_CONFIG.value, _DATA.value))
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        workdir = pathlib.Path(_WORKDIR.value or default_workdir(path, experiment)).absolute()
        run = start(experiment, workdir)
    except Changed as error:
        sys.exit(f"error: {error}; --accept_changes continues all the same")
    except ValueError as error:
        sys.exit(f"error: {error}")
    try:
        finished = run()
    except (Changed, VideoError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if finished else 128 + signal.SIGTERM)


if __name__ == "__main__":
    app.run(main)
