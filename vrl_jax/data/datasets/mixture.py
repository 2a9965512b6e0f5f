"""Mixtures of data sets to pretrain on.

Nothing here imports JAX.
"""

import bisect
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vrl_jax import check
from vrl_jax.data.frame_sampling import LAYOUTS, Sampling
from vrl_jax.data.video_dataset import Splits, Video, VideoDataset, fingerprint, is_reverse_safe

RESOLUTION = 10**6  # of the weights: their shares of a mixture are multiples of its inverse


@dataclass(frozen=True)
class Share:
    """A data set in a mixture.

    Attributes:
      data: the data set.
      weight: number of its videos in a batch, relative to the other data sets.
      name: name in ids and in the log; "" is that of its class.
      stride: stride of its clips; 0 keeps the run's, `sampling.stride`.
      fps: rate at which its stride counts; -1 keeps the run's, `sampling.fps`.
      layout: placement of its clips; "" keeps the run's, `sampling.layout`.
    """

    data: Splits
    weight: float = 1.0
    name: str = ""
    stride: int = 0
    fps: float = -1.0
    layout: str = ""

    def __post_init__(self) -> None:
        """Check weight and sampling, and that a mixture is not part of another."""
        check.positive(weight=self.weight)
        if self.weight == math.inf:
            raise ValueError("weight must be finite, got inf")
        if isinstance(self.data, Mixture):
            raise ValueError(
                "a data set of a mixture must not be a mixture: list its data sets, with their "
                "share of its weight"
            )
        check.at_least(0, stride=self.stride)
        check.at_least(-1, fps=self.fps)
        check.one_of(("", *LAYOUTS), layout=self.layout)

    def adapt_sampling(self, sampling: Sampling) -> Sampling:
        """Return the sampling of this data set in a run."""
        return replace(
            sampling,
            stride=self.stride or sampling.stride,
            fps=sampling.fps if self.fps < 0 else self.fps,
            layout=self.layout or sampling.layout,
        )


@dataclass(frozen=True)
class Mixture:
    """A weighted mixture of data sets; probes use the training and test videos of the first.

    Attributes:
      shares: the data sets with their weights.
    """

    shares: tuple[Share, ...] = ()

    def pretrain(self) -> "VideoMixture":
        """Return the videos of all data sets; raises `ValueError` as they do."""
        return VideoMixture(self._shares(), tuple(share.data.pretrain() for share in self.shares))

    def train(self) -> VideoDataset:
        """Return the training videos of the first data set."""
        return self._shares()[0].data.train()

    def test(self) -> VideoDataset:
        """Return the test videos of the first data set."""
        return self._shares()[0].data.test()

    def _shares(self) -> tuple[Share, ...]:
        if not self.shares:
            raise ValueError("a mixture needs data sets: --data=\"Mixture 'SET key=value' ...\"")
        names = [share.name or type(share.data).__name__ for share in self.shares]
        if len(set(names)) < len(names):
            raise ValueError(f"data sets of a mixture need distinct names, got {', '.join(names)}")
        return tuple(
            replace(share, name=name) for share, name in zip(self.shares, names, strict=True)
        )


@dataclass(frozen=True)
class VideoMixture:
    """The videos of several data sets without labels, one set after the other.

    Attributes:
      shares: the data sets, with names.
      parts: their videos.
    """

    shares: tuple[Share, ...]
    parts: tuple[VideoDataset, ...]

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """No labels: the classes of different data sets differ."""
        return {}

    @property
    def mirror_safe(self) -> bool:
        """Whether all data sets are."""
        return all(part.mirror_safe for part in self.parts)

    @property
    def reverse_safe(self) -> bool:
        """Whether views of all data sets may be played backwards."""
        return all(map(is_reverse_safe, self.parts))

    @property
    def hash(self) -> str:
        """Hash of the data sets."""
        return hashlib.sha256("".join(map(fingerprint, self.parts)).encode()).hexdigest()

    def __len__(self) -> int:
        """Return the number of videos of all data sets."""
        return self.bounds()[-1]

    def __getitem__(self, index: int) -> Video:
        """Return video `index`."""
        number, start, _ = self.find_part(index)
        video = self.parts[number][index - start]
        return Video(f"{self.shares[number].name}/{video.id}", video.media, {})

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"VideoMixture({', '.join(share.name for share in self.shares)})"

    def bounds(self) -> list[int]:
        """Return the index of the first video of each data set, then the number of all videos."""
        return list(itertools.accumulate(map(len, self.parts), initial=0))

    def find_part(self, index: int) -> tuple[int, int, int]:
        """Return the number of the data set of a video, and its first and last index + 1."""
        bounds = self.bounds()
        if not 0 <= index < bounds[-1]:
            raise IndexError(f"index must be 0 to {bounds[-1] - 1}, got {index}")
        number = bisect.bisect_right(bounds, index) - 1
        return number, bounds[number], bounds[number + 1]

    def adapt_sampling(self, index: int, sampling: Sampling) -> Sampling:
        """Return the sampling of a video in a run."""
        return self.shares[self.find_part(index)[0]].adapt_sampling(sampling)

    def count_draws(self, draws: int) -> dict[str, int]:
        """Return how many of the first `draws` videos of a run are of each data set."""
        names = (share.name for share in self.shares)
        return dict(zip(names, self._count(draws), strict=True))

    def find_turn(self, position: int) -> tuple[int, int]:
        """Return the data set of a position in a run, and its number of earlier positions."""
        before, after = self._count(position), self._count(position + 1)
        number = next(number for number, count in enumerate(before) if after[number] > count)
        return number, before[number]

    def _count(self, draws: int) -> list[int]:
        """Return the draws of each data set: the first is spread evenly, the next in the rest."""
        total = sum(share.weight for share in self.shares)
        weights = [max(1, round(share.weight / total * RESOLUTION)) for share in self.shares]
        counts, remaining = [], sum(weights)
        for weight in weights:
            rest = draws * (remaining - weight) // remaining if remaining > weight else 0
            counts.append(draws - rest)
            draws, remaining = rest, remaining - weight
        return counts
