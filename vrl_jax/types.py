"""Types that packages exchange: features of an encoder, views and slots of a method."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Features(NamedTuple):
    """Features of clips at every level of an encoder; XLA removes those that are not used.

    The leading axes enumerate clips: one axis out of an encoder, videos and views in the outputs of
    a method.

    Attributes:
      clip: mean of the last feature map over time and space.
      frames: mean of the last feature map over space, at the temporal resolution of the encoder.
      stages: feature maps after the stem and after each stage.
    """

    clip: Float[Array, "*b d"]
    frames: Float[Array, "*b t d"]
    stages: tuple[Float[Array, "*b _ _ _ _"], ...]


class View(NamedTuple):
    """An augmented view of a video.

    Attributes:
      clip: number of the decoded clip that is augmented.
      still: repeat one frame of the clip; all still views of a video use the same frame number.
      weak: probability of skipping colour jitter, grayscale and blur.
      same_augment_as: number of the view whose random parameters it shares; -1 has its own.
    """

    clip: int
    still: bool = False
    weak: float = 0.0
    same_augment_as: int = -1


class TrainLength(NamedTuple):
    """Length of a run, for schedules.

    Attributes:
      steps: optimiser steps of the run.
      steps_per_epoch: optimiser steps per pass over the videos.
    """

    steps: int
    steps_per_epoch: int


class Slot(NamedTuple):
    """An embedding that a framework compares across views.

    Attributes:
      dim: its dimension.
      temperature: of the softmax; ignored by frameworks without one.
      weight: of its loss term.
      unit: whether the framework scales it to unit length; False if its length carries meaning.
      negatives: numbers of the views that serve only as negatives, for every video.
      scored: whether the embedding already consists of prototype scores, see
        `PrototypeFramework`.
    """

    dim: int
    temperature: float = 0.1
    weight: float = 1.0
    unit: bool = True
    negatives: tuple[int, ...] = ()
    scored: bool = False
