"""Data sets by name and `key=value` settings, as on command lines.

Nothing here imports JAX.
"""

import dataclasses
import importlib
import json
import os
import pkgutil
import shlex
from collections.abc import Iterable
from typing import Any, get_type_hints

from vrl_jax.data.datasets.mixture import Mixture, Share
from vrl_jax.data.video_dataset import Splits

_BOOLEANS = {"true": True, "false": False}
_PARSE = {str: str, int: int, float: float, bool: lambda text: _BOOLEANS[text.lower()]}


def build_dataset(name: str, settings: Iterable[str]) -> Splits:
    """Build a data set.

    Args:
      name: a class in this folder, `module:Class`, or a folder of videos for `ClassFolders`.
      settings: fields of the data set as `key=value`; those of a `Mixture` are data sets as
        "name key=value ...", with fields of `Share` such as `weight=2`. A field that is a data set
        is written like one of these.

    Raises:
      ValueError: there is no such data set or field, or a value has the wrong type.
    """
    if name == Mixture.__name__:
        return Mixture(tuple(map(_build_share, settings)))
    pairs = [setting.partition("=")[::2] for setting in settings]
    if name not in list_datasets() and os.path.isdir(os.path.expanduser(name)):
        name, pairs = "ClassFolders", [("root", name), *pairs]
    kind = _find(name)
    return kind(**_parse_fields(name, kind, pairs))


def _build_share(text: str) -> Share:
    """Return a data set of a mixture by its name and settings, which include those of `Share`."""
    name, *settings = _split_words(text)
    own = {item.name for item in dataclasses.fields(Share)} - {"data"}
    inner = [setting for setting in settings if setting.partition("=")[0] not in own]
    pairs = [setting.partition("=")[::2] for setting in settings if setting not in inner]
    return Share(build_dataset(name, inner), **_parse_fields("Share", Share, pairs))


def _split_words(text: str) -> list[str]:
    """Return the words of a data set with its settings, at least one."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a data set: {error}") from None
    if not words:
        raise ValueError(f"a data set must be 'NAME key=value ...', got {text!r}")
    return words


def _parse_fields(name: str, kind: type, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the values of `key=value` pairs in the types of a class' fields."""
    types = {item.name: get_type_hints(kind)[item.name] for item in dataclasses.fields(kind)}
    fields = ", ".join(f"{key} ({field_type.__name__})" for key, field_type in types.items())
    values = {}
    for key, text in pairs:
        if key not in types:
            raise ValueError(f"{name} has no field {key!r}: its fields are {fields}")
        if types[key] is Splits:
            inner, *settings = _split_words(text)
            values[key] = build_dataset(inner, settings)
            continue
        try:
            values[key] = _PARSE[types[key]](text)
        except (KeyError, ValueError):
            raise ValueError(
                f"{key}={text!r} has the wrong type: the fields of {name} are {fields}"
            ) from None
    return values


def describe_dataset(source: Splits) -> dict[str, Any]:
    """Return the class and the fields of a data set as JSON."""
    kind = type(source)
    fields = json.loads(json.dumps(dataclasses.asdict(source)))
    return {"source": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}


def list_datasets() -> dict[str, type]:
    """Return the data set classes of this folder by name, sorted."""
    kinds = {}
    for module in pkgutil.iter_modules([os.path.dirname(__file__)], f"{__package__}."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            own = getattr(kind, "__module__", "") == module.name and name[0] != "_"
            if own and hasattr(kind, "pretrain") and dataclasses.fields(kind):
                kinds[name] = kind
    return dict(sorted(kinds.items()))


def _find(name: str) -> type:
    module, _, attribute = name.partition(":")
    if not attribute:
        if name not in list_datasets():
            raise ValueError(
                f"{name!r} is neither a folder nor a data set: data sets are "
                f"{', '.join(list_datasets())}, or module:Class"
            )
        return list_datasets()[name]
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"{name!r} is not a data set: {error}") from error
    if not dataclasses.is_dataclass(kind) or not hasattr(kind, "pretrain"):
        raise ValueError(f"{name!r} is not a data set: it must be a dataclass with `pretrain()`")
    return kind
