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
from vrl_jax.data.datasets import lookup
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.experiment import Experiment
from vrl_jax.train.compilation import enable_cache

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_DATA = flags.DEFINE_string(
    "data", "", "Another data set than the config's: its class and fields, 'Prepared root=/data'."
)
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
        enable_cache()
        if _EXPLAIN.value:
            _explain()
        else:
            command()

    sys.argv = normalize_argv(sys.argv)  # where overrides are looked for, too
    app.run(run, flags_parser=parse_flags)


def normalize_argv(argv: list[str]) -> list[str]:
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
    return [_resolve_config(each) for each in joined]


def _resolve_config(given: str) -> str:
    flag, _, path = given.partition("=")
    file = pathlib.Path(path.partition(":")[0])
    if flag != "--config" or file.exists() or file.parent != pathlib.Path("configs"):
        return given
    folder = pathlib.Path(importlib.util.find_spec("configs").origin).parent
    return f"{flag}={folder / path.partition('/')[2]}" if (folder / file.name).exists() else given


def parse_flags(argv: list[str]) -> list[str]:
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
        print(explain_config(config_from_flags(), shutil.get_terminal_size((100, 0)).columns))
    except ValueError as error:
        sys.exit(f"error: {error}")


def config_from_flags() -> Experiment | Evaluation:
    """Return what the command line's config describes.

    Raises:
      ValueError: a setting that cannot be.
    """
    return configs.build(replace_data(_CONFIG.value, _DATA.value))


def replace_data(described: ml_collections.ConfigDict, data: str) -> dict[str, Any]:
    """Return the config with the data set that the command line names, if it names one.

    Raises:
      ValueError: there is no such data set, or it has no such field.
    """
    tree = described.to_dict()
    if data.strip():
        kind, *fields = shlex.split(data)
        tree["data"] = configs.describe(lookup.build_dataset(kind, fields)).to_dict()
    return tree
