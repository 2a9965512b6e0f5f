"""Data sets that list their videos first and then look for the files.

Nothing here imports JAX.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import warn_once
from vrl_jax.data.datasets.folder_contents import FolderCache, holds_images, without_extension
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import MissingPart, Video, VideoDataset, VideoHandle, VideoList

PARTS = ("pretrain", "train", "test")


@dataclass(frozen=True)
class Listed:
    """Base of data sets on disk, which list their videos first and then look for the files."""

    benchmark: ClassVar[str] = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the "train" or "test" part; subclasses implement this.

        They need not exist: a missing one has the path at which it was looked for first. Raises
        `ValueError` where the annotations are missing.
        """
        raise NotImplementedError

    def list_part(self, part: str) -> VideoList:
        """Return the videos of the "pretrain", "train" or "test" part, as `list_videos` does.

        The videos to pretrain on are the training videos unless a subclass overrides this.
        """
        check.one_of(PARTS, part=part)
        return self.list_videos("test" if part == "test" else "train")

    def pretrain(self) -> VideoDataset:
        """Return the videos to pretrain on; raises `ValueError` if any file is missing."""
        return require_files(self.list_part("pretrain"))

    def train(self) -> VideoDataset:
        """Return the training videos; raises `ValueError` if any file is missing."""
        return require_files(self.list_part("train"))

    def test(self) -> VideoDataset:
        """Return the test videos; raises `ValueError` if any file is missing."""
        return require_files(self.list_part("test"))

    def _both(self, part: str, field: str, read: Callable[[str, str], list]) -> dict[str, list]:
        """Return `read(name, value)` of the fields `train_<field>` and `test_<field>` by part.

        The other part is included where its field is set, so that both share class numbers.
        """
        values = {key: getattr(self, f"{key}_{field}") for key in ("train", "test")}
        return {
            key: read(f"{key}_{field}", value)
            for key, value in values.items()
            if value or key == part
        }


def require_files(videos: VideoList) -> VideoList:
    """Return the videos; raises `ValueError` if any of their files is missing."""
    folders = FolderCache()
    paths = [video.media.path for video in videos.videos]
    missing = [path for path in paths if not folders.has_file(path)]
    if missing:
        folders = (path for each in missing[:3] for path in (each, without_extension(each)))
        frames = [path for path in folders if os.path.isdir(path) and holds_images(path)]
        hint = f"; {frames[0]} is a folder: pack its frames into one .zip file" if frames else ""
        raise ValueError(
            f"{len(missing)} of {len(paths)} listed videos are missing: "
            f"{', '.join(missing[:3])}{' ...' * (len(missing) > 3)}{hint}"
        )
    return videos


def locate_videos(
    root: AnyPath,
    rows: Iterable[tuple[str, int | tuple[int, ...] | None, Sequence[str]]],
    classes: Sequence[str],
    mirror_safe: bool = True,
) -> VideoList:
    """Return the videos of rows (id, class numbers, candidate paths in order of preference).

    Without labels all class numbers are None, and there are no classes. The file may have another
    video extension than the path, because lists omit extensions and videos get transcoded. A
    missing video has its first path. An id that is listed with two classes is warned of.
    """
    folders, videos, listed = FolderCache(), [], {}
    for name, label, candidates in rows:
        paths = [os.path.join(root, candidate) for candidate in candidates]
        path = next(filter(None, map(folders.find, paths)), paths[0])
        labels = {} if label is None else {"class": label}
        if listed.setdefault(name, label) != label:
            warn_once(f"{root}: {name} is listed with two classes, {listed[name]} and {label}")
        videos.append(Video(remote_paths.to_text(name), open_handle(path), labels))
    return VideoList(tuple(videos), {"class": tuple(classes)} if classes else {}, mirror_safe)


def open_handle(path: str) -> VideoHandle:
    """Return the handle of a file; a zip file holds the frames of a video as images."""
    return ZippedFrames(path) if path.lower().endswith(".zip") else VideoFile(path)


def require_folder(key: str, path: str) -> AnyPath:
    """Return the folder of a config's field `key`; raises `ValueError` if it does not exist."""
    folder = remote_paths.to_path(path)
    if not path or not remote_paths.is_folder(folder):
        raise ValueError(
            f"{key} must be a folder, got {path!r}: pass --config.data.{key}=/path/to/{key}"
        )
    return folder


def part_error(data: Any, field: str) -> type[ValueError]:
    """Return the error for a part that is not there: `MissingPart` if `field` has its default."""
    default = next(each.default for each in fields(data) if each.name == field)
    return MissingPart if getattr(data, field) == default else ValueError


def require_file(key: str, path: str) -> AnyPath:
    """Return the file of a config's field `key`.

    Raises:
      MissingPart: the field is not set.
      ValueError: the file does not exist.
    """
    file = remote_paths.to_path(path)
    if not path or not remote_paths.is_file(file):
        raise (ValueError if path else MissingPart)(
            f"{key} must be a file, got {path!r}: pass --config.data.{key}=/path/to/file"
        )
    return file
