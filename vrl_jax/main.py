"""Pretrain, judge and tell: `python -m vrl_jax.main --config=configs/synthetic_bod.py`.

A config of an `Evaluation` judges what was trained before, see `vrl_jax.evaluation.run`.

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
import json
import os
import pathlib
import signal
import sys
import traceback
from typing import NoReturn

import jax
from absl import flags as absl_flags
from absl import logging
from ml_collections import config_flags

from vrl_jax import config as configs
from vrl_jax import flags
from vrl_jax.data.dataset import VideoError
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.evaluation.run import EvaluationRun
from vrl_jax.experiment import Experiment
from vrl_jax.files import ConfigMismatch
from vrl_jax.pretraining.run import Pretraining

_WORKDIR = absl_flags.DEFINE_string(
    "workdir", "", "Folder of the run, or gs://bucket/folder; by default runs/ and a name."
)
_QUIET = absl_flags.DEFINE_bool("quiet", False, "Show no progress bar.")
_ACCEPT = absl_flags.DEFINE_bool(
    "accept_changes", False, "Continue a run although its config or data have changed since."
)
_WANDB = absl_flags.DEFINE_string(
    "wandb", "", "Project on Weights & Biases that gets the log, too."
)
_DISTRIBUTED = absl_flags.DEFINE_bool(
    "distributed", False, "One of several processes, found by JAX."
)
_COORDINATOR = absl_flags.DEFINE_string("coordinator_address", None, "Host:port of process 0.")
_PROCESSES = absl_flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS = absl_flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_DRY_RUN = absl_flags.DEFINE_bool(
    "dry_run", False, "Check, compile, tell what it would need; stop."
)


def default_workdir(path: str, experiment: Experiment | Evaluation) -> pathlib.Path:
    """Return `runs/<config name>-<hash of the settings>`: the same settings find their run."""
    digest = hashlib.sha256(json.dumps(configs.run_identity(experiment), sort_keys=True).encode())
    return pathlib.Path("runs") / f"{pathlib.Path(path).stem}-{digest.hexdigest()[:8]}"


def make_job(
    experiment: Experiment | Evaluation, workdir: str | pathlib.Path
) -> Pretraining | EvaluationRun:
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
    return EvaluationRun(experiment, workdir, _QUIET.value)


def init_distributed() -> None:
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


def run() -> bool:
    """Refuse what cannot work, run; return whether the end was reached.

    Raises:
      ValueError: a setting, data or a folder that cannot be.
      FloatingPointError: a loss that is not finite.
      VideoError: too many videos that cannot be read.
      OSError: what cannot be written.
    """
    init_distributed()
    experiment = flags.config_from_flags()
    workdir = _WORKDIR.value or default_workdir(
        config_flags.get_config_filename(absl_flags.FLAGS["config"]), experiment
    )
    try:
        job = make_job(experiment, workdir)
    except ConfigMismatch as error:
        raise ConfigMismatch(f"{error}; --accept_changes continues all the same") from error
    if _DRY_RUN.value:
        print(job.plan())
        return True
    return job()


def exit_with_error(error: Exception) -> NoReturn:
    """End with one line; of several processes at once, for the others wait for this one."""
    logging.debug("Where the error came from:", exc_info=error)
    if jax.process_count() == 1:
        sys.exit(f"error: {error}")
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Work, and leave with what came of it."""
    try:
        finished = run()
    except (FloatingPointError, OSError, ValueError, VideoError) as error:
        exit_with_error(error)
    except Exception:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        os._exit(1)
    sys.exit(0 if finished else 128 + signal.SIGTERM)


if __name__ == "__main__":
    flags.launch(main)
