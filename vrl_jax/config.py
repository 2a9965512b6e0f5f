"""An experiment as typed components, and as the `ConfigDict` that the command line overrides.

A component is a frozen dataclass; it states its defaults once and checks itself. `describe` turns
an experiment into a `ConfigDict` in which every component carries its class under `kind`, and
`build` turns that back, so a config file refers to classes by import and a saved config finds
them again.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from vrl_jax.data.augment import Augment
from vrl_jax.data.pipeline import Loader
from vrl_jax.data.sample import Sampling
from vrl_jax.data.sources import Splits
from vrl_jax.evaluate.judge import Evaluate
from vrl_jax.frameworks.framework import FrameworkConfig
from vrl_jax.methods.method import MethodConfig
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.train.loop import Train
from vrl_jax.train.optim import Optimizer


@dataclass(frozen=True)
class Experiment:
    """All that decides the numbers of a run, and (`loader` alone) what does not.

    Attributes:
      data: the data set.
      sampling: which frames of a video make a clip.
      resize: height and width that frames are decoded to, before augmentation.
      encoder: the network that is kept.
      framework: how embeddings are compared.
      method: what is embedded.
      optim: how the loss is minimised.
      augment: how a clip becomes a view.
      train: how long and how often.
      evaluate: how the result is judged.
      loader: processes and buffers.
    """

    data: Splits
    encoder: EncoderConfig
    framework: FrameworkConfig
    method: MethodConfig
    optim: Optimizer
    sampling: Sampling = field(default_factory=Sampling)
    resize: tuple[int, int] = (128, 171)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    loader: Loader = field(default_factory=Loader)

    def __post_init__(self):
        if min(self.resize) < 8:
            raise ValueError(f"resize must be at least 8 pixels each way, got {self.resize}")


def describe(component: Any) -> ml_collections.ConfigDict:
    """Return a component as a `ConfigDict`, its class under `kind`, components within likewise."""
    described = ml_collections.ConfigDict({"kind": _name(type(component))})
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if item.type is float:
            value = float(value)  # 1 for 1.0 would make the field an integer for ever
        described[item.name] = describe(value) if dataclasses.is_dataclass(value) else value
    return described


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
