"""Conversion between typed components and the `ConfigDict` that the command line overrides.

A component is a frozen dataclass that defines its defaults and checks its values. `describe`
returns it as a `ConfigDict` with the class of every component under `kind`; `build` is the inverse.
A tuple of components becomes one of the keys "0", "1", and so on.
Config files thus refer to classes by import, and saved configs by name.
"""

import dataclasses
import difflib
import importlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_args

import ml_collections


def describe(component: Any) -> ml_collections.ConfigDict:
    """Return a component, and those inside it, as a `ConfigDict` with the class under `kind`."""
    described = ml_collections.ConfigDict({"kind": _name(type(component))})
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if item.type is float:
            value = float(value)  # with 1 for 1.0 the ConfigDict would accept only integers
        if dataclasses.is_dataclass(value):
            value = describe(value)
        elif is_component_tuple(value):
            value = ml_collections.ConfigDict({str(i): describe(v) for i, v in enumerate(value)})
        described[item.name] = value
    return described


def is_component_tuple(value: Any) -> bool:
    """Return whether a value is a tuple of components, which a config has by number."""
    return isinstance(value, tuple) and bool(value) and all(map(dataclasses.is_dataclass, value))


def run_identity(run: Any) -> dict[str, Any]:
    """Return the settings that a resumed run must share with its checkpoint.

    These are all but `loader`, which changes no number, and `train.shard_state`, which changes them
    by rounding alone, as another number of devices does.
    """
    tree = json.loads(describe(run).to_json())
    del tree["loader"]
    tree.get("train", {}).pop("shard_state", None)
    return tree


def build(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Any:
    """Return the component of a description by `describe`, also after a round trip through JSON.

    Raises:
      ValueError: a key is unknown or missing, or a value has the wrong type or is rejected by its
        component; the message gives the path of the key.
    """
    tree = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    return _build(tree, "config")


def reject_key(path: str, key: str, kind: str, fields: Iterable[str]) -> NoReturn:
    """Raise `ValueError` for a key that a component of the class `kind` does not have."""
    close = difflib.get_close_matches(key, fields, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"{path}.{key} is unknown{hint}; {kind} has {', '.join(fields)}")


def _build(config, path):
    kind = _load(config["kind"], path)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in set(config) - {"kind"} - set(fields):
        reject_key(path, key, kind.__name__, fields)
    values = {
        key: _value(config[key], fields[key].type, f"{path}.{key}")
        for key in config
        if key != "kind"
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _value(value, expected, path):
    """Return the value of a field in the type that its component declares."""
    if isinstance(value, Mapping) and "kind" not in value:  # components by number
        if sorted(value) != sorted(map(str, range(len(value)))):
            numbers = ", ".join(sorted(value))
            raise ValueError(f"{path} must be numbered 0 to {len(value) - 1}, got {numbers}")
        value = tuple(value[str(number)] for number in range(len(value)))
    if isinstance(value, Mapping):
        return _build(value, path)
    if isinstance(value, list):
        value = tuple(value)
    if expected is float and type(value) is int:
        value = float(value)
    plain = getattr(expected, "__origin__", expected)
    if plain in (bool, int, float, str, tuple) and type(value) is not plain:
        raise ValueError(f"{path} must be {plain.__name__}, got {value!r}")
    if plain is float and not math.isfinite(value):
        raise ValueError(f"{path} must be finite, got {value!r}")
    items = get_args(expected) if plain is tuple else ()
    if not items:
        return value
    if ... in items:
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise ValueError(f"{path} must be {len(items)} values, got {value!r}")
    pairs = enumerate(zip(value, items, strict=True))
    return tuple(_value(item, kind, f"{path}[{i}]") for i, (item, kind) in pairs)


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
