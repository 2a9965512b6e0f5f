"""Rows of shards, and the videos that they list.

Nothing here imports JAX.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from vrl_jax.data.datasets.class_names import ClassNumbers, Label, number_classes
from vrl_jax.data.datasets.file_lists import require_file
from vrl_jax.data.datasets.shard_paths import name_shards
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video_dataset import Video, VideoHandle, VideoList

THREADS = 8  # shards read in parallel


class Row(NamedTuple):
    """A sample of a shard.

    Attributes:
      id: id of the video.
      media: the video.
      label: the label as it is stored.
    """

    id: str
    media: VideoHandle
    label: Label


def index_shards(index: Callable[[AnyPath, str], list[Row]], paths: Sequence[AnyPath]) -> list[Row]:
    """Return the rows `index(path, name)` of all shards in order, several read in parallel."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(chain(*pool.map(index, paths, name_shards(paths))))


def read_single_value(name: str, feature: str, features: dict, *kinds: type) -> int | bytes:
    """Return the only value of a feature; raises `ValueError` with the name of the record."""
    values = features.get(feature, [])
    if len(values) != 1 or not isinstance(values[0], kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}: {feature} must be one {expected}, got {values!r:.99}")
    return values[0]


def number_rows(rows: Sequence[Row], file: str) -> ClassNumbers:
    """Return the classes of rows, from a config's field `classes` if it is set."""
    return number_classes(
        (row.label for row in rows), require_file("classes", file) if file else None
    )


def make_list(rows: Sequence[Row], classes: ClassNumbers, mirror_safe: bool) -> VideoList:
    """Return the videos of a part's rows, without labels if none has one.

    Raises:
      ValueError: there are no rows, or some have no label or one that is not among the classes.
    """
    if not rows:
        raise ValueError("the shards contain no sample")
    numbers = classes.number_labels(
        [row.label for row in rows], lambda row: f"{rows[row].media.path}: sample {rows[row].id}"
    )
    if numbers is None:
        return VideoList(tuple(Video(row.id, row.media, {}) for row in rows), {}, mirror_safe)
    videos = (
        Video(row.id, row.media, {"class": number})
        for row, number in zip(rows, numbers, strict=True)
    )
    return VideoList(tuple(videos), {"class": classes.names}, mirror_safe)
