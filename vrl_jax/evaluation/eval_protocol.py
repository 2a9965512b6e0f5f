"""The contract of an evaluation protocol, and the comparison with its published recipe."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from vrl_jax import check, config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes.result_files import Result

Deviations = dict[str, list[Any]]
P = TypeVar("P", bound="EvalProtocol")


@dataclass(frozen=True)
class EvalInput:
    """Input of the encoder at test time: predictions or features are averaged over clips and crops.

    Attributes:
      sampling: clips of a video, and their frames.
      resize: height and width that frames are decoded to.
      size: side of the square crops, pixels.
      crops: positions of the crops.
    """

    sampling: Sampling
    resize: tuple[int, int]
    size: int
    crops: Crops = Crops()

    def __post_init__(self):
        check.at_least(1, size=self.size, resize=min(self.resize))

    @property
    def view_shape(self) -> tuple[int, ...]:
        """Shape of one crop of one clip, (1, t, s, s, 3)."""
        return (1, self.sampling.frames, self.size, self.size, 3)


@dataclass(frozen=True)
class TrainInput:
    """Input of the encoder while a classifier is trained.

    Attributes:
      sampling: clips of a video in each example; they share its label.
      resize: height and width that frames are decoded to.
      augment: how a clip becomes a view; mean and std are those of the encoder's pretraining.
      repeats: clips of a video in an epoch.
      strong: RandAugment, random erasing and repeated augmentation, as published recipes for
        transformers have them.
    """

    sampling: Sampling
    resize: tuple[int, int]
    augment: Augment
    repeats: int = 1
    strong: StrongAugment = StrongAugment()

    def __post_init__(self):
        check.at_least(1, repeats=self.repeats, resize=min(self.resize))


@dataclass(frozen=True)
class RunInput:
    """Input of the pretraining run that made the encoder; 0 keeps the run's own value.

    Attributes:
      clips: clips of a video; the run's are those of its own probes.
      frames: frames of a clip.
      size: side of the square crop, pixels; frames are decoded in proportion.
      stride: from frame to frame of a clip.
    """

    clips: int = 0
    frames: int = 0
    size: int = 0
    stride: int = 0

    def __post_init__(self):
        check.at_least(0, clips=self.clips, frames=self.frames)
        check.at_least(0, size=self.size, stride=self.stride)

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the run's input; without a run, 10 clips of 16 frames."""
        own = _run_input(model)
        sampling = replace(
            own.sampling,
            clips=self.clips or own.sampling.clips,
            frames=self.frames or own.sampling.frames,
            stride=self.stride or own.sampling.stride,
        )
        ratio = (self.size or own.size) / own.size
        height, width = own.resize
        resize = round(height * ratio), round(width * ratio)
        return replace(own, sampling=sampling, size=self.size or own.size, resize=resize)


@runtime_checkable
class EvalProtocol(Protocol):
    """An evaluation protocol: a frozen dataclass that a config names as `protocol`.

    `task` is an `EvalTask`: one encoder, its videos and devices. A field `subset`, a `TrainSubset`,
    is optional: with it, few labels are drawn before `check` and `evaluate`.

    Attributes:
      task: short name of the evaluation, such as "linear"; results carry it.
      published: `module:function[:benchmark]` of the published recipe; "" for none.
    """

    task: str
    published: str

    @property
    def group(self) -> str:
        """The label whose groups are left out one at a time; "" where train and test differ."""
        ...

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input at test time; a protocol may take it from the run of the encoder."""
        ...

    def adapt(self, dataset: VideoDataset) -> "EvalProtocol":
        """Return this protocol without mirror images where they change labels.

        Raises:
          ValueError: the protocol cannot do without them.
        """
        ...

    def check(self, task: Any) -> None:
        """Raise `ValueError` if this protocol cannot run on these data; no video is read."""
        ...

    def stamp(self, task: Any) -> dict[str, Any]:
        """Return the settings that results carry, as JSON, besides those of the input."""
        ...

    def evaluate(self, task: Any) -> list[Result] | None:
        """Return the results; None if training was interrupted by a signal."""
        ...


def recipe(*benchmarks: str) -> Callable[[Callable[[str], P]], Callable[[str], P]]:
    """Mark a function `(benchmark="") -> protocol` as a published recipe.

    The protocol it returns names the function under `published`, so that any setting that differs
    from the recipe is reported with the results.

    Args:
      benchmarks: data sets that the paper evaluates by this recipe, such as "ucf101".
    """

    def mark(function):
        @functools.wraps(function)
        def build(benchmark: str = ""):
            name = f"{function.__module__}:{function.__name__}"
            return replace(function(benchmark), published=f"{name}:{benchmark}".rstrip(":"))

        build.benchmarks = benchmarks
        return build

    return mark


def load_recipe(published: str) -> tuple[Callable[[str], EvalProtocol], str]:
    """Return the published recipe of a name `module:function[:benchmark]`, and the benchmark.

    Raises:
      ValueError: there is no such recipe.
    """
    module, name, benchmark = (*published.split(":"), "", "")[:3]
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"protocol.published: no recipe {published!r}: {error}") from error
    if not hasattr(function, "benchmarks"):
        raise ValueError(f"protocol.published: {published!r} is not a recipe")
    return function, benchmark


def find_deviations(protocol: EvalProtocol, benchmark: str) -> Deviations:
    """Return each setting that differs from the published recipe: [used here, published].

    Args:
      protocol: what is run.
      benchmark: the data set, for which the recipe may have settings of its own; "" for another.
    """
    if not protocol.published:
        return {}
    function, own = load_recipe(protocol.published)
    original = replace(function(benchmark or own), published=protocol.published)
    used, published = (_flatten(config.describe(each).to_dict()) for each in (protocol, original))
    return {
        key: [used.get(key), published.get(key)]
        for key in dict.fromkeys((*used, *published))
        if used.get(key) != published.get(key)
    }


def match_pretrained_input(augment: Augment, pretrained: Augment) -> Augment:
    """Return an augmentation with the input normalisation of an encoder's pretraining."""
    return replace(
        augment,
        mean=pretrained.mean,
        std=pretrained.std,
        subtract_background=pretrained.subtract_background,
    )


def _run_input(model: Pretrained | None) -> EvalInput:
    if model is not None and model.experiment:
        run = model.experiment
        sampling = replace(run.sampling, clips=run.evaluate.clips)
        return EvalInput(sampling, run.resize, run.augment.size)
    size = model.augment.size if model else Augment().size
    resize = round(size * 8 / 7), round(size * 171 / 112)
    sampling = replace((model and model.sampling) or Sampling(16, 2), clips=10)
    return EvalInput(sampling, resize, size, Crops(share=7 / 8))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return leaves
