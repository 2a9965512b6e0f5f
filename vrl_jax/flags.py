"""The command line of a config: its flags, overrides and data set.

`launch(command)` parses the flags that pretraining, evaluation, `browse`, `preflight` and `doctor`
share; `config_from_flags` builds the `Experiment` or `Evaluation` that they describe.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import app, flags, logging

from vrl_jax import config as configs
from vrl_jax.config_file import read_config
from vrl_jax.config_help import explain_config
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.experiment import Experiment
from vrl_jax.train.compilation import enable_cache

CONFIG = flags.DEFINE_string(
    "config", None, "File of the experiment; FILE:ARG passes ARG to its get_config."
)
_DATA = flags.DEFINE_string(
    "data", "", "Data set in place of the config's: class and fields, 'Prepared root=/data'."
)
_EXPLAIN = flags.DEFINE_bool("explain", False, "List every setting and stop: --config.help.")
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of the run, or gs://bucket/folder; default: runs/NAME."
)
QUIET = flags.DEFINE_bool("quiet", False, "Show no progress bar.")
ACCEPT = flags.DEFINE_bool(
    "accept_changes", False, "Continue a run although its config or data have changed."
)
WANDB = flags.DEFINE_string("wandb", "", "Project on Weights & Biases that receives the log.")
PROFILE = flags.DEFINE_string(
    "profile", "", "Steps to trace with JAX's profiler, such as 10:15, into profile/ of the run."
)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes that JAX finds.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Host:port of process 0.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check, compile, print the plan, stop.")
flags.mark_flag_as_required("config")

# --config=FILE, --config.KEY=VALUE, --config.KEY or --noconfig.KEY
_OF_CONFIG = re.compile(r"--?(no)?config(?:\.([\w.]+))?(?:=(.*))?", re.DOTALL)

_overrides: list[tuple[str, str | bool]] = []  # of the command line; set by `parse_flags`


def launch(command: Callable[[], None]) -> None:
    """Run a command with the flags of a config."""

    def run(argv):
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs every file
        enable_cache()
        if _EXPLAIN.value:
            _explain()
        else:
            command()

    app.run(run, flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags and keep the overrides; return what is neither."""
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    argv, _overrides[:] = split_overrides(argv)
    return app.parse_flags_with_usage(argv)


def split_overrides(argv: list[str]) -> tuple[list[str], list[tuple[str, str | bool]]]:
    """Separate `--config.key=value`, also with a space, from the other arguments.

    `--config.key` alone sets a boolean, `--noconfig.key` clears it, and `--config.help` becomes
    `--explain`.
    """
    rest, overrides, words = [], [], list(argv)
    while words:
        word = words.pop(0)
        match = _OF_CONFIG.fullmatch(word)
        if word == "--config.help":
            rest.append("--explain")
        elif not match or (match[1] and not match[2]):
            rest.append(word)
        else:
            no, key, value = match.groups()
            if value is None and not no and words and not re.match("-[-a-z]", words[0]):
                value = words.pop(0)
            if key:
                overrides.append((key, not no if value is None else value))
            else:
                rest.append("--config" if value is None else f"--config={value}")
    return rest, overrides


def _explain() -> None:
    try:
        print(explain_config(config_from_flags(), shutil.get_terminal_size((100, 0)).columns))
    except ValueError as error:
        sys.exit(f"error: {error}")


def config_from_flags() -> Experiment | Evaluation:
    """Return the component that the command line describes.

    Raises:
      ValueError: the config file or a setting is invalid.
    """
    return configs.build(replace_data(read_config(CONFIG.value, _overrides), _DATA.value))


def replace_data(described: ml_collections.ConfigDict, data: str) -> dict[str, Any]:
    """Return the config with the data set of `--data`, if there is one.

    Raises:
      ValueError: an unknown data set or field.
    """
    tree = described.to_dict()
    if data.strip():
        kind, *fields = shlex.split(data)
        tree["data"] = configs.describe(dataset_lookup.build_dataset(kind, fields)).to_dict()
    return tree
