"""The nouns that travel between stages: what an encoder returns, what a method compares."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Features(NamedTuple):
    """What an encoder says of clips, at every level; XLA drops what nobody reads.

    The leading axes are the clips': one out of an encoder, videos and views in a method's outputs.

    Attributes:
      clip: mean of the last feature map over time and space.
      frames: mean of the last feature map over space only; `t` is the encoder's own time axis.
      stages: the feature map after the stem and after each stage, first to last.
    """

    clip: Float[Array, "*b d"]
    frames: Float[Array, "*b t d"]
    stages: tuple[Float[Array, "*b _ _ _ _"], ...]


class View(NamedTuple):
    """One augmented look at a video.

    Attributes:
      clip: which of the decoded clips it is made from.
      still: one frame of the clip, repeated; the same frame number in all still views of a video.
      weak: probability that colour jitter, grayscale and blur are left out.
      drawn_as: number of the view whose random draws it shares; -1 draws its own.
    """

    clip: int
    still: bool = False
    weak: float = 0.0
    drawn_as: int = -1


class TrainLength(NamedTuple):
    """How long a run is, for schedules: optimiser steps in all, and in one pass over the videos."""

    steps: int
    epoch: int


class Slot(NamedTuple):
    """One embedding that is compared across views.

    Attributes:
      dim: its width.
      temperature: of the softmax it is compared with; frameworks without one ignore it.
      weight: its share of the loss.
      unit: whether the framework scales it to unit length; False where the method has set its
        length on purpose.
      negatives: numbers of views whose embeddings, of every video, are negatives and nothing else.
      scored: the embedding is scores against prototypes already: see `SwAV.scores_head`.
    """

    dim: int
    temperature: float = 0.1
    weight: float = 1.0
    unit: bool = True
    negatives: tuple[int, ...] = ()
    scored: bool = False
