"""What a data set is to the rest of the library: videos by number, each able to open itself.

Nothing here imports JAX: these objects are pickled into loader workers.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8


@runtime_checkable
class FrameReader(Protocol):
    """An opened video. Frame `i` is the i-th frame that the decoder puts out."""

    num_frames: int
    fps: float

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        """Return the wanted frames as RGB of (height, width) `size`: scaled to cover, then cut."""
        ...


@runtime_checkable
class VideoHandle(Protocol):
    """Where a video's frames come from: a file, bytes, a recipe to render."""

    def open(self) -> AbstractContextManager[FrameReader]:
        """Open for reading; raises `VideoError` naming the video and the reason."""
        ...


class VideoError(Exception):
    """A video that cannot be decoded; the message names it and says why."""


@dataclass(frozen=True)
class Video:
    """One item of a source.

    Attributes:
      id: unique in its source and stable between runs.
      media: what opens to its frames.
      labels: label name to class number; every video of a source has the same names.
    """

    id: str
    media: VideoHandle
    labels: Mapping[str, int]


@runtime_checkable
class VideoDataset(Protocol):
    """A data set split: a fixed sequence of videos.

    Attributes:
      classes: label name to class names, in the order of the class numbers.
      mirror_safe: whether a horizontal flip leaves every label true.
    """

    classes: Mapping[str, tuple[str, ...]]
    mirror_safe: bool

    def __len__(self) -> int:
        """Return the number of videos."""
        ...

    def __getitem__(self, index: int) -> Video:
        """Return video `index`, without opening it."""
        ...


@runtime_checkable
class Splits(Protocol):
    """A data set with its splits, as a config names it.

    Its methods raise `ValueError` where the root is missing or empty. The data set of a published
    benchmark has its name ("ucf101", "hmdb51", "diving48", "ssv2" or "k400") in the class attribute
    `benchmark`, from which an evaluation takes the settings of a paper; others have "" or none.
    """

    def pretrain(self) -> VideoDataset:
        """Return the videos that a representation is learned from; no label is used."""
        ...

    def train(self) -> VideoDataset:
        """Return the labelled videos that probes learn from."""
        ...

    def test(self) -> VideoDataset:
        """Return the videos to be judged on."""
        ...


@runtime_checkable
class Listing(Splits, Protocol):
    """A data set that can list its videos without checking that their files exist."""

    def list_part(self, part: str) -> "VideoList":
        """Return all videos of the "pretrain", "train" or "test" part, in order.

        A missing video has the path at which it was looked for first.
        """
        ...


@runtime_checkable
class HasMasks(Protocol):
    """A `VideoDataset` with foreground masks, as JHMDB and rendered videos have them."""

    def masks(self) -> VideoDataset:
        """Return the masks as videos in the same order, white on the foreground.

        Opening one that does not exist raises `VideoError`.
        """
        ...


@runtime_checkable
class HasTwins(Protocol):
    """A `VideoDataset` whose videos exist with one factor changed and all others fixed."""

    def twins(self) -> tuple[VideoDataset, VideoDataset]:
        """Return the videos with other motion, then those with another appearance, in order."""
        ...


@dataclass(frozen=True)
class VideoList:
    """A source that is a list in memory.

    Attributes:
      videos: its items.
      classes, mirror_safe: see `Source`.
      hash: of the data set, where an index has made one.
      left_out: how many more the data set names that are not here, for they could not be read.
    """

    videos: tuple[Video, ...]
    classes: Mapping[str, tuple[str, ...]]
    mirror_safe: bool = True
    hash: str = ""
    left_out: int = 0

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.videos)

    def __getitem__(self, index: int) -> Video:
        """Return video `index`."""
        return self.videos[index]

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"VideoList({len(self.videos)} videos)"


def take_subset(source: VideoDataset, videos: int) -> VideoDataset:
    """Return at most that many videos, evenly spaced over the source; 0 returns all of it."""
    if not 0 < videos < len(source):
        return source
    chosen = np.linspace(0, len(source) - 1, videos).round().astype(int)
    picked = tuple(source[int(index)] for index in chosen)
    return VideoList(picked, source.classes, source.mirror_safe)


def fingerprint(source: VideoDataset) -> str:
    """Return the identity of the data set: an index' hash, else one over all ids and labels."""
    if getattr(source, "hash", ""):
        return source.hash
    digest = hashlib.sha256()
    for index in range(len(source)):
        video = source[index]
        digest.update(repr((video.id, sorted(video.labels.items()))).encode())
    return digest.hexdigest()
