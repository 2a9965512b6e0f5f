"""What a run is as typed components, and as the `ConfigDict` that the command line overrides.

A component is a frozen dataclass; it states its defaults once and checks itself. `describe` turns
one into a `ConfigDict` in which every component carries its class under `kind`, and `build` turns
that back, so a config file refers to classes by import and a saved config finds them again.
"""

import dataclasses
import difflib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import ml_collections

from vrl_jax import check, protocols
from vrl_jax.data.augment import Augment
from vrl_jax.data.pipeline import Loader
from vrl_jax.data.sample import Sampling
from vrl_jax.data.sources import Splits
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluate.factors import Factors
from vrl_jax.evaluate.judge import Evaluate
from vrl_jax.frameworks.framework import FrameworkConfig
from vrl_jax.methods.method import MethodConfig
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.protocols import Change
from vrl_jax.train.loop import Train
from vrl_jax.train.optim import Optimizer

OFFICIAL = {
    "UCF101": "ucf101",
    "HMDB51": "hmdb51",
    "Diving48": "diving48",
    "SomethingSomethingV2": "ssv2",
    "Kinetics400": "k400",
}  # data set classes that are one of `protocols.SETS`


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


@dataclass(frozen=True)
class Evaluation:
    """All that decides the numbers of an evaluation, and (`loader` alone) what does not.

    Attributes:
      data: the labelled videos.
      task: "linear", "finetune", "retrieval"; "probe" asks the probes of pretraining, "factors"
        what is appearance and what is motion.
      protocol: "lss", "severe", "ctp", "coclr" or "dualvar", see `vrl_jax.protocols`; "own", for
        the last two, cuts clips as the run of `init` did.
      set: which of `protocols.SETS` the data are, where their class does not say it; "" for none.
      splits: official splits to average over; () for the data as they are.
      init: folder of a run, or a file that `vrl_jax.convert` made; "" is `encoder`, untrained.
      step: of the run's checkpoints; -1 takes the newest.
      encoder: the network where there is no `init`; its clips are 10 of 16 frames, as a file's.
      change: what deviates from the protocol.
      label: which of the data's labels; "probe" and "factors" take all.
      untrained: judge the same encoder untrained as well.
      batch: videos judged at a time, over all devices.
      seed: of classifier, order, augmentation and untrained weights.
      log_every: steps between records of training.
      save_every: steps between checkpoints.
      probe: what the task "probe" asks, by its `group`, `center`, `ks`, `knn` and `linear`; of
        retrieval the `ks`, and `neighbours` for the report.
      factors: what the task "factors" asks.
      masks: folder of the test videos' foregrounds for it, see `vrl_jax.data.scuba.masks`; rendered
        videos have their own.
      loader: processes and buffers.
    """

    data: Splits
    task: str
    protocol: str
    set: str = ""
    splits: tuple[int, ...] = ()
    init: str = ""
    step: int = -1
    encoder: EncoderConfig = field(default_factory=Tiny)
    change: Change = field(default_factory=Change)
    label: str = "class"
    untrained: bool = True
    batch: int = 8
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    probe: Evaluate = field(default_factory=Evaluate)
    factors: Factors = field(default_factory=Factors)
    masks: str = ""
    loader: Loader = field(default_factory=Loader)

    @property
    def data_set(self) -> str:
        """Which of `protocols.SETS` the data are; "" for none of them."""
        return self.set or OFFICIAL.get(type(self.data).__name__, "")

    def __post_init__(self):
        check.one_of((*protocols.TASKS, "probe", "factors"), task=self.task)
        check.one_of(("", *protocols.SETS), set=self.set)
        check.at_least(1, batch=self.batch, log_every=self.log_every, save_every=self.save_every)
        check.at_least(-1, step=self.step)
        if (self.task in protocols.TASKS) == (self.protocol == "own"):
            raise ValueError(
                "the protocol 'own' is of the tasks 'probe' and 'factors' and of no other, got "
                f"{self.protocol!r} with {self.task!r}"
            )
        own = OFFICIAL.get(type(self.data).__name__, "")
        if own and self.set not in ("", own):
            raise ValueError(
                f"the data are {own}, but set is {self.set!r}: pass --config.set={own}"
            )
        if self.masks and self.task != "factors":
            raise ValueError(f"masks are of the task 'factors', got some with {self.task!r}")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits must be different ones, got {self.splits}")
        if self.splits and not hasattr(self.data, "split"):
            raise ValueError(
                f"{type(self.data).__name__} has no official splits, got splits={self.splits}: "
                "pass --config.splits='()'"
            )


def describe(component: Any) -> ml_collections.ConfigDict:
    """Return a component as a `ConfigDict`, its class under `kind`, components within likewise."""
    described = ml_collections.ConfigDict({"kind": _name(type(component))})
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if item.type is float:
            value = float(value)  # 1 for 1.0 would make the field an integer for ever
        described[item.name] = describe(value) if dataclasses.is_dataclass(value) else value
    return described


def described(run: Experiment | Evaluation) -> dict[str, Any]:
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
