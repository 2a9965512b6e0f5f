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
from jaxtyping import Bool, Float, Int, UInt8


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


class MissingPart(ValueError):
    """A data set has no such part, as a list of videos to pretrain on has no test videos."""


@dataclass(frozen=True)
class Video:
    """One item of a data set.

    Attributes:
      id: unique in its data set and stable across runs.
      media: opens the frames.
      labels: label name to class number, or to the numbers of all its classes in ascending order
        where a video may have several; all videos of a part have the same label names, and those of
        one without labels have none.
    """

    id: str
    media: VideoHandle
    labels: Mapping[str, int | tuple[int, ...]]


@runtime_checkable
class VideoDataset(Protocol):
    """One part of a data set: a fixed sequence of videos.

    Attributes:
      classes: label name to class names, in the order of the class numbers; empty without labels.
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

    Its methods raise `ValueError` where the root is missing or empty, and `MissingPart` where the
    data set has no such part. Videos to pretrain on need neither labels nor other parts. The data
    set of a published benchmark has its name ("ucf101", "hmdb51", "diving48", "ssv2" or "k400") in
    the class attribute `benchmark`, from which an evaluation takes the settings of a paper; others
    have "" or none.
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

    def twins(self) -> Mapping[str, VideoDataset]:
        """Return the videos with one factor changed, in order, by the name of the factor.

        "dynamic" is the motion and "static" the appearance; there may be others.
        """
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
      reverse_safe: whether views may be played backwards; False where each label has a reverse.
    """

    videos: tuple[Video, ...]
    classes: Mapping[str, tuple[str, ...]]
    mirror_safe: bool = True
    hash: str = ""
    left_out: int = 0
    reverse_safe: bool = True

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.videos)

    def __getitem__(self, index: int) -> Video:
        """Return video `index`."""
        return self.videos[index]

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"VideoList({len(self.videos)} videos)"


def is_multilabel(source: VideoDataset, label: str) -> bool:
    """Return whether a video may have several classes of a label."""
    return len(source) > 0 and isinstance(source[0].labels[label], tuple)


def label_array(
    source: VideoDataset, label: str
) -> Int[np.ndarray, " n"] | Bool[np.ndarray, "n c"]:
    """Return the class numbers of all videos; a mask of the classes where they have several."""
    values = [source[index].labels[label] for index in range(len(source))]
    if not is_multilabel(source, label):
        return np.array(values)
    mask = np.zeros((len(values), len(source.classes[label])), bool)
    for row, numbers in zip(mask, values, strict=True):
        row[list(numbers)] = True
    return mask


def take_subset(source: VideoDataset, videos: int) -> VideoDataset:
    """Return at most `videos` videos, evenly spaced over the data set; 0 returns all of them."""
    if not 0 < videos < len(source):
        return source
    indices = np.linspace(0, len(source) - 1, videos).round().astype(int)
    subset = tuple(source[int(index)] for index in indices)
    return copy_list(source, subset)


def copy_list(source: VideoDataset, videos: tuple[Video, ...]) -> VideoList:
    """Return a list of videos with the classes of another data set, and what it allows."""
    return VideoList(
        videos, source.classes, source.mirror_safe, reverse_safe=is_reverse_safe(source)
    )


def is_reverse_safe(source: VideoDataset) -> bool:
    """Return whether views may be played backwards, which a data set need not say."""
    return getattr(source, "reverse_safe", True)


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
