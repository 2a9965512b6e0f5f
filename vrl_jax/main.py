"""Pretrain or evaluate: `python -m vrl_jax.main --config=configs/synthetic_bod.py`.

A config of an `Evaluation` evaluates a pretrained encoder, see `vrl_jax.evaluation.evaluation_run`.

Run the same command again to continue an interrupted run; a finished run is evaluated and
reported again. `--config.optim.learning_rate=0.001` overrides a setting and
`--data="Prepared root=/data/k400"` the data set. `--config.help` lists every setting. `--dry_run`
checks and compiles everything, prints the plan and the memory of the run, and stops.

The exit status is 0 at the last step, 1 with a one-line error, and 143 after SIGTERM or Ctrl-C,
when the state is saved.

On several hosts, run the same command on each, with `--distributed` where JAX finds its peers (TPU
slices, SLURM, ...), else with `--coordinator_address`, `--num_processes` and `--process_id`. Hosts
share batches and checkpoints; the first one writes everything else.
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

from vrl_jax import config as configs
from vrl_jax import flags
from vrl_jax.atomic_files import ConfigMismatch
from vrl_jax.data.video_dataset import VideoError
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.experiment import Experiment
from vrl_jax.pretraining.pretraining_run import Pretraining

absl_flags.adopt_module_key_flags(flags)  # listed by --help
TASK = absl_flags.DEFINE_enum(
    "task", None, ["train", "evaluate"], "Refuse a config of the other task; see `vrl`."
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
      ValueError: invalid settings, or flags that an evaluation does not have.
    """
    if isinstance(experiment, Experiment):
        return Pretraining(
            experiment,
            workdir,
            flags.QUIET.value,
            flags.ACCEPT.value,
            flags.WANDB.value,
            flags.PROFILE.value,
        )
    if flags.WANDB.value:
        raise ValueError("only pretraining logs to Weights & Biases; drop --wandb")
    if flags.PROFILE.value:
        raise ValueError("only pretraining is profiled; drop --profile")
    if flags.ACCEPT.value:
        raise ValueError(
            "an evaluation cannot resume under different settings; drop --accept_changes"
        )
    return EvaluationRun(experiment, workdir, flags.QUIET.value)


def init_distributed() -> None:
    """Connect to the other processes, if the flags name any.

    Raises:
      ValueError: the flags do not name the coordinator.
    """
    if flags.DISTRIBUTED.value or flags.COORDINATOR.value:
        jax.distributed.initialize(
            flags.COORDINATOR.value, flags.PROCESSES.value, flags.PROCESS.value
        )
    elif flags.PROCESSES.value is not None or flags.PROCESS.value is not None:
        raise ValueError(
            "num_processes and process_id need the address of process 0: pass "
            "--coordinator_address=HOST:PORT as well"
        )


def run() -> bool:
    """Run the job of the command line; return whether the last step was reached.

    Raises:
      ValueError: invalid settings, data or folder.
      FloatingPointError: a loss that is not finite.
      VideoError: too many videos cannot be read.
      OSError: a file that cannot be written.
    """
    experiment = flags.config_from_flags()
    task = "train" if isinstance(experiment, Experiment) else "evaluate"
    if TASK.value not in (None, task):
        raise ValueError(f"{flags.CONFIG.value} is a config for: vrl {task}")
    init_distributed()
    workdir = flags.WORKDIR.value or default_workdir(flags.CONFIG.value, experiment)
    try:
        job = make_job(experiment, workdir)
    except ConfigMismatch as error:
        raise ConfigMismatch(f"{error}; --accept_changes continues anyway") from error
    if flags.DRY_RUN.value:
        print(job.plan())
        return True
    return job()


def exit_with_error(error: Exception) -> NoReturn:
    """Exit with a one-line error.

    In multi-process runs exit at once, because the other processes would block on this one.
    """
    logging.debug("Traceback of the error:", exc_info=error)
    if jax.process_count() == 1:
        sys.exit(f"error: {error}")
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Run, and exit with its status."""
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
