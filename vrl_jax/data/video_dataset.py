"""Data set interfaces: numbered videos that open themselves.

Nothing here imports JAX, because these objects are pickled into loader workers.
"""

import filecmp
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8


@runtime_checkable
class FrameReader(Protocol):
    """An open video. Frame `i` is the i-th frame that the decoder outputs."""

    num_frames: int
    fps: float

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        """Return frames as RGB of (height, width) `size`, scaled to cover it and center-cropped."""
        ...


@runtime_checkable
class HasTimes(Protocol):
    """A `FrameReader` of a video whose frame rate may vary.

    Attributes:
      times: when each frame is shown, in seconds from the first frame, ascending.
    """

    times: Float[np.ndarray, " n"]


@runtime_checkable
class VideoHandle(Protocol):
    """A source of frames: a video file, bytes in memory, a scene to render."""

    def open(self) -> AbstractContextManager[FrameReader]:
        """Open for reading; raises `VideoError` with the name of the video and the reason."""
        ...


class VideoError(Exception):
    """A video cannot be decoded; the message has its name and the reason."""


@dataclass(frozen=True)
class Video:
    """One item of a data set.

    Attributes:
      id: unique in its data set and stable across runs.
      media: opens the frames.
      labels: label name to class number; all videos of a data set have the same label names.
    """

    id: str
    media: VideoHandle
    labels: Mapping[str, int]


@runtime_checkable
class VideoDataset(Protocol):
    """One part of a data set: a fixed sequence of videos.

    Attributes:
      classes: label name to class names, in the order of the class numbers.
      mirror_safe: whether all labels are invariant to a horizontal flip.
    """

    classes: Mapping[str, tuple[str, ...]]
    mirror_safe: bool

    def __len__(self) -> int:
        """Return the number of videos."""
        ...

    def __getitem__(self, index: int) -> Video:
        """Return video `index` without opening it."""
        ...


@runtime_checkable
class Splits(Protocol):
    """A data set with its splits, as a config names it.

    Its methods raise `ValueError` where the root is missing or empty. The data set of a published
    benchmark has its name ("ucf101", "hmdb51", "diving48", "ssv2" or "k400") in the class attribute
    `benchmark`, from which an evaluation takes the settings of a paper; others have "" or none.
    """

    def pretrain(self) -> VideoDataset:
        """Return the videos to pretrain on; their labels are not used."""
        ...

    def train(self) -> VideoDataset:
        """Return the labelled training videos of probes and classifiers."""
        ...

    def test(self) -> VideoDataset:
        """Return the videos to evaluate on."""
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
    """A list of videos in memory.

    Attributes:
      videos: the items.
      classes, mirror_safe: see `VideoDataset`.
      hash: hash of the data set, if it was indexed.
      left_out: number of further videos of the data set that are left out: unreadable ones, and
        those outside of the expected folders.
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
    """Return at most `videos` videos, evenly spaced over the data set; 0 returns all of them."""
    if not 0 < videos < len(source):
        return source
    indices = np.linspace(0, len(source) - 1, videos).round().astype(int)
    subset = tuple(source[int(index)] for index in indices)
    return VideoList(subset, source.classes, source.mirror_safe)


def fingerprint(source: VideoDataset) -> str:
    """Return the hash of the data set's index or, without an index, of all ids and labels."""
    if getattr(source, "hash", ""):
        return source.hash
    digest = hashlib.sha256()
    for index in range(len(source)):
        video = source[index]
        digest.update(repr((video.id, sorted(video.labels.items()))).encode())
    return digest.hexdigest()


def check_disjoint(train: VideoDataset, test: VideoDataset) -> None:
    """Raise `ValueError` where test videos are training videos as well.

    Videos are the same if their handles are equal and have a path, or have equal ids. Links count
    as the files that they point to. Two whole parts are also the same if ids, labels and sizes of
    files are and the first files have the same content, as after copying a folder. Copies of single
    videos are not found.
    """
    train_videos, test_videos = (
        [part[index] for index in range(len(part))] for part in (train, test)
    )
    find_links = functools.cache(_find_links)
    identities = {_identity(video, find_links) for video in train_videos}
    shared = [video.id for video in test_videos if _identity(video, find_links) in identities]
    if (
        not shared
        and len(train_videos) == len(test_videos)
        and all(map(_looks_copied, train_videos, test_videos))
    ):
        first = [part[0].media.path for part in (train_videos, test_videos)]
        if filecmp.cmp(*first, shallow=False):
            shared = [video.id for video in test_videos]
    if shared:
        raise ValueError(
            f"{len(shared)} of {len(test_videos)} test videos are training videos as well, such as "
            f"{shared[0]}: choose parts that share no video, or leave out the groups of a label"
        )


def _identity(video: Video, find_links: Callable[[str], tuple[str, set[str]]]) -> Any:
    """Return a key that is equal for the same video; handles without a hash differ as objects."""
    media = video.media
    try:
        hash(media)
    except TypeError:
        return video.id, id(media)
    path = getattr(media, "path", None)
    if path is None:
        return video.id, media
    folder, name = os.path.split(path)
    real, links = find_links(folder)
    path = os.path.realpath(path) if name in links else os.path.join(real, name)
    return (
        replace(media, path=path) if "path" in getattr(media, "__dataclass_fields__", ()) else media
    )


def _find_links(folder: str) -> tuple[str, set[str]]:
    """Return the path of a folder without links, and the names of the links in it."""
    if not os.path.isdir(folder):  # on an object store
        return folder, set()
    with os.scandir(folder) as entries:
        return os.path.realpath(folder), {entry.name for entry in entries if entry.is_symlink()}


def _looks_copied(one: Video, other: Video) -> bool:
    """Return whether id, labels and the size of the file of two videos are equal."""
    paths = [getattr(video.media, "path", "") for video in (one, other)]
    return (
        (one.id, dict(one.labels)) == (other.id, dict(other.labels))
        and all(map(os.path.isfile, paths))
        and len(set(map(os.path.getsize, paths))) == 1
    )
