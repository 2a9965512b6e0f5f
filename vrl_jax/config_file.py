"""Config files and the overrides of their settings.

A config file is Python with a function `get_config()` that returns a `ConfigDict`, see
`vrl_jax.config`.
"""

import ast
import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import ConfigDict

from vrl_jax.config import reject_key

_PARSERS = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after "--"; after it stand overrides."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end]], [*arguments[end + 1 :]]


def read_config(file: str, overrides: Iterable[tuple[str, str | bool]] = ()) -> ConfigDict:
    """Return the config of a file with some settings replaced.

    Args:
      file: `path.py`, or `path.py:ARG` for the config of `get_config("ARG")`. `configs/x.py` is a
        file of the installed package if the current folder has none of this name.
      overrides: keys such as `train.steps` and values in command-line syntax, in order. A value is
        parsed by the type of the setting that it replaces; a boolean may be a value as well. A key
        that occurs again replaces the value, or extends it if it is a tuple.

    Raises:
      ValueError: the file does not exist, is not valid Python or has no config, `get_config`
        rejects its argument, a key is unknown, or a value has another type.
    """
    path, *arg = file.split(":", 1)
    config = _call_get_config(_find_file(path), arg)
    extended = set()
    for key, text in overrides:
        _override(config, key, text, extend=key in extended)
        extended.add(key)
    return config


def _find_file(path: str) -> pathlib.Path:
    """Return the config file of a path, from this folder or the installed package."""
    file = pathlib.Path(os.path.expanduser(path))
    if file.parent == pathlib.Path("configs") and not file.is_file():
        file = pathlib.Path(importlib.util.find_spec("configs").origin).parent / file.name
    if not file.is_file():
        raise ValueError(f"config must be an existing file, got {path!r}")
    return file


def _call_get_config(file: pathlib.Path, arg: list[str]) -> ConfigDict:
    name = "config_file"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise ValueError(f"config must be a Python file, got {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a class that the file defines can be found by its name
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ValueError("it has no function get_config()")
        config = module.get_config(*arg)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""  # None for a null byte
        raise ValueError(f"{file}{line}: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    except Exception as error:
        library = os.path.dirname(ml_collections.__file__)  # it raises the file's mistakes
        frames = traceback.extract_tb(error.__traceback__)
        innermost = [frame for frame in frames if not frame.filename.startswith(library)][-1]
        places = {spec.origin: f"{file}, line {innermost.lineno}", __file__: file}  # or the call
        if innermost.filename not in places:  # no mistake of the file itself
            raise
        kind = type(error).__name__
        raise ValueError(f"{places[innermost.filename]}: {kind}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{file}: get_config() must return a ConfigDict, got {config!r}")
    return config


def _override(config: ConfigDict, key: str, text: str | bool, extend: bool) -> None:
    """Replace one setting by the value of a text."""
    *parents, last = key.split(".")
    node, path = config, "config"
    for name in [*parents, last]:
        if not isinstance(node, ConfigDict):
            _, _, holder = path.rpartition(".")
            raise ValueError(f"config.{key} is unknown: {holder} is {node!r} and has no keys")
        if name not in node:
            kind = str(node.get("kind", path)).rpartition(":")[2]
            reject_key(path, name, kind, [field for field in node if field != "kind"])
        holder, node, path = node, node[name], f"{path}.{name}"
    kind = holder.get_type(last)
    if isinstance(text, bool) and kind is not bool:
        raise ValueError(f"{path} needs a value: --{path}=VALUE")
    try:
        value = _parse(text, kind)
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
        name = "a dict" if issubclass(kind, ConfigDict) else kind.__name__
        raise ValueError(f"{path} must be {name}, got {text!r}") from error
    holder[last] = (*holder[last], *value) if extend and isinstance(value, tuple) else value


def _parse(text: str | bool, kind: type) -> Any:
    """Return the value of a text as a type; a value that replaces None is any literal."""
    if kind in _PARSERS:
        return _PARSERS[kind].parse(text)
    if issubclass(kind, ConfigDict):
        return ConfigDict(ast.literal_eval(text))
    if issubclass(kind, tuple | list):
        return _parse_tuple(text)
    return _parse_literal(text)


def _parse_tuple(text: str) -> tuple[Any, ...]:
    """Return the items of `(1, 2)`, `1,2`, `1` or `a,b`."""
    value = _parse_literal(text)
    if isinstance(value, str) and value == text:
        return tuple(item.strip() for item in text.split(",")) if text else ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _parse_literal(text: str) -> Any:
    """Return the value of a Python literal, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
