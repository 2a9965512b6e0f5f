"""Typed components and the `ConfigDict` that the command line overrides.

A component is a frozen dataclass; it states its defaults once and checks itself. `describe` turns
one into a `ConfigDict` in which every component carries its class under `kind`, and `build` turns
that back, so a config file refers to classes by import and a saved config finds them again.
"""

import dataclasses
import difflib
import importlib
import json
from collections.abc import Mapping
from typing import Any, get_args

import ml_collections


def describe(component: Any) -> ml_collections.ConfigDict:
    """Return a component as a `ConfigDict`, its class under `kind`, components within likewise."""
    described = ml_collections.ConfigDict({"kind": _name(type(component))})
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if item.type is float:
            value = float(value)  # 1 for 1.0 would make the field an integer for ever
        described[item.name] = describe(value) if dataclasses.is_dataclass(value) else value
    return described


def run_identity(run: Any) -> dict[str, Any]:
    """Return, as JSON, what a resumed run must share with its checkpoint: all but `loader`."""
    tree = json.loads(describe(run).to_json())
    del tree["loader"]
    return tree


def build(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Any:
    """Return the component that `describe` described, also after a trip through JSON.

    Raises:
      ValueError: an unknown or missing key, a value of another type, or one that the component
        itself refuses; the message gives the path of the key.
    """
    tree = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    return _build(tree, "config")


def _build(config, path):
    kind = _load(config["kind"], path)
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in set(config) - {"kind"} - set(known):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{path}.{key} is unknown{hint}; {kind.__name__} has {', '.join(known)}")
    values = {
        key: _value(config[key], known[key].type, f"{path}.{key}")
        for key in config
        if key != "kind"
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _value(value, wanted, path):
    """Return one field's value in the type that its component declares."""
    if isinstance(value, Mapping):
        return _build(value, path)
    if isinstance(value, list):
        value = tuple(value)
    if wanted is float and type(value) is int:
        value = float(value)
    plain = getattr(wanted, "__origin__", wanted)
    if plain in (bool, int, float, str, tuple) and type(value) is not plain:
        raise ValueError(f"{path} must be {plain.__name__}, got {value!r}")
    items = get_args(wanted) if plain is tuple else ()
    if items and ... not in items and len(items) != len(value):
        raise ValueError(f"{path} must be {len(items)} values, got {value!r}")
    return value


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _load(name: str, path: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path}.kind: no component {name!r}: {error}") from error
    if not dataclasses.is_dataclass(kind):
        raise ValueError(f"{path}.kind: {name!r} is not a component")
    return kind
