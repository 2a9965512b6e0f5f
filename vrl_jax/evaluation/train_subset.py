"""Random subsets of the training videos, for evaluations with few labels."""

from dataclasses import dataclass

import numpy as np

from vrl_jax import check
from vrl_jax.data.video_dataset import (
    VideoDataset,
    copy_list,
    is_multilabel,
    label_array,
)


@dataclass(frozen=True)
class TrainSubset:
    """Random training videos; results are averaged over several draws. By default all videos.

    A draw depends on the labels of the training videos and the seed alone, and smaller subsets of a
    class are part of larger ones.

    Attributes:
      per_class: videos of each class; 0 for no subset by class.
      percent: percentage of the videos of each class, at least one of them; 0 for no such subset.
      videos: videos in all, whatever their class, as in SEVERE; 0 for no such subset.
      draws: number of subsets.
      seed: of the draws.
    """

    per_class: int = 0
    percent: float = 0.0
    videos: int = 0
    draws: int = 1
    seed: int = 0

    def __post_init__(self):
        check.at_least(0, per_class=self.per_class, percent=self.percent, videos=self.videos)
        check.at_least(0, seed=self.seed)
        check.at_least(1, draws=self.draws)
        if self.percent > 100:
            raise ValueError(f"percent must be at most 100, got {self.percent:g}")
        kinds = [name for name in ("per_class", "percent", "videos") if getattr(self, name)]
        if len(kinds) > 1:
            raise ValueError(
                f"a subset has one size, got {' and '.join(kinds)}: set the others to 0"
            )
        if self.draws > 1 and not kinds:
            raise ValueError(f"draws={self.draws} needs per_class, percent or videos")

    def __bool__(self) -> bool:
        """Return whether videos are left out."""
        return bool(self.per_class or self.percent or self.videos)

    def draw(self, source: VideoDataset, label: str, number: int) -> VideoDataset:
        """Return the videos of draw `number`, in their order in the data set.

        Args:
          source: the training videos.
          label: name of the label that has the classes.
          number: number of the draw, from 0.

        Raises:
          ValueError: there are too few videos, in all or of a class.
        """
        if not self:
            return source
        if self.videos:
            order = self._shuffle(np.arange(len(source)), number, 0)
            chosen = _take(order, self.videos, "protocol.subset.videos", "the training videos")
        else:
            check.one_of(tuple(source.classes), label=label)
            if is_multilabel(source, label):
                raise ValueError(
                    f"label {label!r} has several classes per video: pass protocol.subset.videos"
                )
            labels = label_array(source, label)
            chosen = np.concatenate(
                [
                    self._choose(np.flatnonzero(labels == code), number, int(code), name)
                    for code, name in enumerate(source.classes[label])
                    if (labels == code).any()
                ]
            )
        videos = tuple(source[index] for index in np.sort(chosen).tolist())
        return copy_list(source, videos)

    def _choose(self, indices: np.ndarray, number: int, code: int, name: str) -> np.ndarray:
        """Return some of the videos of a class."""
        order = self._shuffle(indices, number, 1 + code)
        if self.percent:
            return order[: max(1, round(len(order) * self.percent / 100))]
        return _take(order, self.per_class, "protocol.subset.per_class", f"class {name!r}")

    def _shuffle(self, indices: np.ndarray, number: int, stream: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number, stream]).permutation(indices)


def _take(order: np.ndarray, count: int, key: str, where: str) -> np.ndarray:
    if count > len(order):
        raise ValueError(f"{key} requests {count} videos, but {where} has {len(order)}")
    return order[:count]
