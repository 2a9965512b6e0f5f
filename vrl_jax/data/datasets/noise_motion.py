"""Videos whose objects are visible by motion alone: noise that moves over noise that does not.

The foreground of a video, given by its masks, is filled with one noise image that moves with it,
the background with another that rests. Every pixel of a frame is a different sample of the noise,
so a still frame has the same distribution for all videos, and no label can be read from it.
Differences of frames show the foreground and its motion.

Appearance-free videos are due to Ilic, Pock and Wildes (ECCV 2022, arXiv 2207.06261), who move
noise by optical flow. Here, noise moves with the centre of the mask, in whole pixels: no flow is
estimated, and pixels are never interpolated, which would correlate them.

Nothing here imports JAX.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vrl_jax import check
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.video_dataset import (
    FrameReader,
    HasMasks,
    Splits,
    Video,
    VideoDataset,
    VideoHandle,
    VideoList,
    copy_list,
)


@dataclass(frozen=True)
class NoiseMotion:
    """The masks of another data set as moving noise, with its labels.

    Attributes:
      data: a data set with masks in all parts that are used: rendered videos, or `JHMDB` with
        `masks`.
      seed: of the noise.
    """

    data: Splits = field(default_factory=Synthetic)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the seed."""
        check.at_least(0, seed=self.seed)

    def pretrain(self) -> VideoList:
        """Return the videos to pretrain on; raises `ValueError` where there are no masks."""
        return self._animate(self.data.pretrain())

    def train(self) -> VideoList:
        """Return the training videos; raises `ValueError` where there are no masks."""
        return self._animate(self.data.train())

    def test(self) -> VideoList:
        """Return the test videos; raises `ValueError` where there are no masks."""
        return self._animate(self.data.test())

    def _animate(self, part: VideoDataset) -> VideoList:
        if not isinstance(part, HasMasks):
            raise ValueError(f"NoiseMotion needs masks, but {self.data} has none")
        masks = part.masks()
        videos = (masks[index] for index in range(len(masks)))
        return copy_list(
            part,
            tuple(Video(v.id, NoiseVideo(v.media, v.id, self.seed), v.labels) for v in videos),
        )


@dataclass(frozen=True)
class NoiseVideo:
    """One mask as moving noise.

    Attributes:
      mask: the mask as a video, white on the foreground.
      id: of the video; the noise depends on it.
      seed: of the noise.
    """

    mask: VideoHandle
    id: str
    seed: int

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError` as the mask does."""
        with self.mask.open() as reader:
            yield _NoiseReader(reader, (self.seed, zlib.crc32(self.id.encode())))


class _NoiseReader:
    def __init__(self, mask: FrameReader, seed: tuple[int, int]) -> None:
        self.num_frames, self.fps, self._mask, self._seed = mask.num_frames, mask.fps, mask, seed

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        masks = self._mask.read(frames, size)[..., 0] > 127
        grey = animate_noise(masks.reshape(-1, *size), np.random.default_rng(self._seed))
        return np.repeat(grey.reshape(*masks.shape, 1), 3, axis=-1)


def animate_noise(
    masks: Bool[np.ndarray, "n h w"], rng: np.random.Generator
) -> UInt8[np.ndarray, "n h w"]:
    """Return frames of black and white noise that moves with the masks, and rests outside of them.

    Args:
      masks: true on the foreground.
      rng: of the two noise images.
    """
    foreground, background = 255 * rng.integers(0, 2, (2, *masks.shape[1:]), np.uint8)
    down = _shift_back(masks.sum(2))[:, :, None]
    across = _shift_back(masks.sum(1))[:, None, :]
    return np.where(masks, foreground[down, across], background)


def _shift_back(weights: Int[np.ndarray, "n s"]) -> Int[np.ndarray, "n s"]:
    """Return the indices 0 to s - 1, shifted back by the centre of the weights on a circle."""
    side = weights.shape[1]
    indices = np.arange(side)
    centre = np.angle(weights @ np.exp(math.tau * 1j * indices / side)) * side / math.tau
    return (indices - np.round(centre).astype(int)[:, None]) % side
