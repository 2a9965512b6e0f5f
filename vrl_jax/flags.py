"""The command line of a config: its flags, overrides and data set.

`launch(command)` parses the flags that pretraining, evaluation, `browse`, `preflight` and `doctor`
share; `config_from_flags` builds the `Experiment` or `Evaluation` that they describe.
"""

import importlib.util
import pathlib
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from vrl_jax import config as configs
from vrl_jax.config_help import explain_config
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.experiment import Experiment
from vrl_jax.train.compilation import enable_cache

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
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
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes that JAX finds.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Host:port of process 0.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check, compile, print the plan, stop.")
flags.mark_flag_as_required("config")

# --config=FILE or --config.KEY=VALUE: the key and the value.
_OF_CONFIG = re.compile(r"--?(?:no)?config(?:\.([\w.]+))?(?:=(.*))?", re.DOTALL)


def launch(command: Callable[[], None]) -> None:
    """Run a command with the flags of a config; see `normalize_argv`."""

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

    sys.argv = normalize_argv(sys.argv)  # config_flags reads overrides from it
    app.run(run, flags_parser=parse_flags)


def normalize_argv(argv: list[str]) -> list[str]:
    """Return a command line in the spelling that its flags accept.

    `--config.help` becomes `--explain`, `--config.key value` becomes `--config.key=value`, and
    `configs/x.py` is the file of the installed package if there is none here.
    """
    normalized = []
    for argument in argv:
        match = _OF_CONFIG.fullmatch(normalized[-1]) if normalized else None
        if match and match[2] is None and not re.match("-[-a-z]", argument):
            normalized[-1] += f"={argument}"
        else:
            normalized.append("--explain" if argument == "--config.help" else argument)
    return [_resolve_config(argument) for argument in normalized]


def _resolve_config(argument: str) -> str:
    flag, _, path = argument.partition("=")
    file = pathlib.Path(path.partition(":")[0])
    if flag != "--config" or file.exists() or file.parent != pathlib.Path("configs"):
        return argument
    folder = pathlib.Path(importlib.util.find_spec("configs").origin).parent
    return (
        f"{flag}={folder / path.partition('/')[2]}" if (folder / file.name).exists() else argument
    )


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; exit with one line for an unknown config, argument or key."""
    overrides = dict(match.groups() for match in map(_OF_CONFIG.fullmatch, argv) if match)
    file, *arg = (overrides.pop(None, None) or "").split(":", 1)
    if file and not pathlib.Path(file).is_file():
        sys.exit(f"error: config must be an existing file, got {file!r}")
    try:
        if arg:  # absl would print a traceback of the error
            runpy.run_path(file)["get_config"](*arg)
    except ValueError as error:
        sys.exit(f"error: {file}: {error}")
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError):  # ml_collections: an unknown key
        tree = runpy.run_path(file)["get_config"](*arg).to_dict()
        try:
            for path, value in overrides.items():
                _add(tree, path, value)
            configs.build(tree)
        except ValueError as error:
            sys.exit(f"error: {error}")
        raise


def _add(tree: dict[str, Any], path: str, value: str | None) -> None:
    """Add a value at a path; raise `ValueError` if the path leads through another value."""
    *parents, key = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ValueError(f"config.{path} is unknown: {name} is {tree!r} and has no keys")
    tree.setdefault(key, value)


def _explain() -> None:
    try:
        print(explain_config(config_from_flags(), shutil.get_terminal_size((100, 0)).columns))
    except ValueError as error:
        sys.exit(f"error: {error}")


def config_from_flags() -> Experiment | Evaluation:
    """Return the component that the command line describes.

    Raises:
      ValueError: an invalid setting.
    """
    return configs.build(replace_data(_CONFIG.value, _DATA.value))


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
