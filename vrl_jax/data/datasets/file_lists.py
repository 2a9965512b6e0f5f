"""Reading list files and finding the videos that they name, and finding shards.

Nothing here imports JAX. Names from lists and folders are never globbed or passed to a shell: `[`,
`!`, spaces and a leading `-` occur in real ones.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vrl_jax import check
from vrl_jax.data import storage
from vrl_jax.data.dataset import Video, VideoDataset, VideoHandle, VideoList
from vrl_jax.data.storage import AnyPath
from vrl_jax.data.video.containers import ZippedFrames
from vrl_jax.data.video.decode import VideoFile

EXTENSIONS = frozenset(
    ".3gp .avi .flv .h264 .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .ogv .ts .webm .wmv .zip".split()
)
PARTS = ("pretrain", "train", "test")
_BETWEEN, _NUMBER = r"(?:\s*::\s*|[\s,]+)", r"([+-]?\d+)"
COLUMNS = {
    "path label": re.compile(f"(.+?){_BETWEEN}{_NUMBER}"),
    "path frames label": re.compile(rf"(.+?){_BETWEEN}\d+{_BETWEEN}{_NUMBER}"),
    "path frames": re.compile(rf"(.+?){_BETWEEN}\d+"),
}


@dataclass(frozen=True)
class Listed:
    """A data set whose videos are first named, then looked for; the base of those on disk."""

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
        """Return the training videos, to learn a representation from."""
        return require_files(self.list_part("pretrain"))

    def train(self) -> VideoDataset:
        """Return the training videos; raises `ValueError` naming what is missing."""
        return require_files(self.list_part("train"))

    def test(self) -> VideoDataset:
        """Return the test videos; raises `ValueError` naming what is missing."""
        return require_files(self.list_part("test"))

    def _both(self, part: str, field: str, read: Callable[[str, str], list]) -> dict[str, list]:
        """Return what is read of a part, and of the other where the fields `train_...` name two.

        The class numbers of both must mean the same. `read` gets the field's name and its value.
        """
        given = {key: getattr(self, f"{key}_{field}") for key in ("train", "test")}
        return {
            key: read(f"{key}_{field}", value)
            for key, value in given.items()
            if value or key == part
        }


def require_files(listed: VideoList) -> VideoList:
    """Return the videos if all of their files exist; raises `ValueError` otherwise."""
    shelves = _Shelves()
    paths = [video.media.path for video in listed.videos]
    absent = [path for path in paths if not shelves.hold(path)]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(paths)} listed videos are absent: "
            f"{', '.join(absent[:3])}{' ...' * (len(absent) > 3)}"
        )
    return listed


def locate_videos(
    root: AnyPath,
    rows: Iterable[tuple[str, int, Sequence[str]]],
    classes: Sequence[str],
    mirror_safe: bool = True,
) -> VideoList:
    """Return the videos of rows (id, class number, paths where the file may be, best first).

    Any video extension will do instead of the path's own, or where it has none: lists leave it out,
    and people transcode. A video that is nowhere has its first path.
    """
    shelves, videos = _Shelves(), []
    for name, label, places in rows:
        paths = [os.path.join(root, place) for place in places]
        path = next(filter(None, map(shelves.find, paths)), paths[0])
        videos.append(Video(name, open_handle(path), {"class": label}))
    return VideoList(tuple(videos), {"class": tuple(classes)}, mirror_safe)


def open_handle(path: str) -> VideoHandle:
    """Return what opens the file: a zip holds a video's frames as images."""
    return ZippedFrames(path) if path.endswith(".zip") else VideoFile(path)


def read_lines(path: AnyPath) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1."""
    if not storage.is_file(path):
        raise ValueError(f"there is no file {path}")
    lines = storage.read_text(path).split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_list(
    path: AnyPath, first_label: int = 0, columns: str = "path label"
) -> list[tuple[str, int | str]]:
    """Return the (path, class number from 0) rows of a list; see `ListFile` for its columns.

    Where no column is the label, the row has the spaced name of the video's folder instead.
    """
    rows = []
    for number, line in read_lines(path):
        match = COLUMNS[columns].fullmatch(line)
        if not match:
            raise ValueError(f"{path}, line {number}: wanted {columns!r}, got {line!r}")
        label = match[2] if match.re.groups == 2 else space_name(Path(match[1]).parent.name)
        if match.re.groups == 2:
            label = int(label) - first_label
            if label < 0:
                raise ValueError(
                    f"{path}, line {number}: label {match[2]} is below the first, {first_label}"
                )
        rows.append((match[1], label))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def read_classes(path: AnyPath) -> tuple[tuple[str, ...], int]:
    """Return the class names of a file of lines `name`, or `number name`, and the first number."""
    lines = [line for _, line in read_lines(path)]
    rows = [re.fullmatch(r"(\d+)[\s,]+(.+)", line) for line in lines]
    if not all(rows):
        return tuple(lines), 0
    names = {int(row[1]): row[2] for row in rows}
    first = min(names, default=0)
    if sorted(names) != list(range(first, first + len(lines))):
        raise ValueError(f"{path}: wanted classes numbered without gaps from {first}")
    return tuple(names[number] for number in sorted(names)), first


def need_folder(key: str, path: str) -> AnyPath:
    """Return the folder; raises `ValueError` naming the config's key where it is none."""
    folder = storage.to_path(path)
    if not path or not storage.is_folder(folder):
        raise ValueError(
            f"{key} must be a folder, got {path!r}: pass --config.data.{key}=/path/to/{key}"
        )
    return folder


def need_file(key: str, path: str) -> AnyPath:
    """Return the file; raises `ValueError` naming the config's key where it is none."""
    file = storage.to_path(path)
    if not path or not storage.is_file(file):
        raise ValueError(
            f"{key} must be a file, got {path!r}: pass --config.data.{key}=/path/to/file"
        )
    return file


def list_folders(root: AnyPath) -> list[AnyPath]:
    """Return the folders in a folder, in the order of their spaced names; none without it."""
    folders = [at for at in root.iterdir() if at.is_dir()] if storage.is_folder(root) else []
    seen = [at for at in folders if not at.name.startswith(".")]
    return sorted(seen, key=lambda at: (space_name(at.name), at.name))


def list_video_files(folder: AnyPath) -> list[AnyPath]:
    """Return the video files in a folder, sorted."""
    return sorted(
        at
        for at in folder.iterdir()
        if at.suffix.lower() in EXTENSIONS and not at.name.startswith(".")
    )


def list_shards(key: str, shards: str, pattern: str) -> list[AnyPath]:
    """Return the files of a pattern, or those in a folder whose names match, sorted.

    Raises:
      ValueError: there is none, or one of them is absent.
    """
    folder = storage.to_path(shards)
    if shards and storage.is_folder(folder):
        paths = sorted(at for at in folder.iterdir() if re.fullmatch(pattern, at.name))
    else:
        paths = [storage.to_path(path) for path in expand_pattern(shards) if path]
    if not paths:
        raise ValueError(
            f"{key} must be a folder of shards or a pattern, got {shards!r}: pass "
            f"--config.data.{key}=/path/to/name-{{000000..000123}}.tar"
        )
    shelves = _Shelves()
    if absent := [str(path) for path in paths if not shelves.hold(str(path))]:
        raise ValueError(
            f"{len(absent)} of {len(paths)} shards of {key} are absent: {', '.join(absent[:3])}"
        )
    return paths


def expand_pattern(pattern: str) -> list[str]:
    """Return the paths that `{000..123}` or a last `@64` stand for."""
    if match := re.fullmatch(r"(.+)@(\d+)", pattern):
        count = int(match[2])
        return [f"{match[1]}-{number:05}-of-{count:05}" for number in range(count)]
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    numbers = range(int(match[1]), int(match[2]) + 1)
    before, after, width = (
        pattern[: match.start()],
        expand_pattern(pattern[match.end() :]),
        len(match[1]),
    )
    return [f"{before}{number:0{width}}{end}" for number in numbers for end in after]


def list_tfds_shards(root: AnyPath, split: str) -> list[AnyPath]:
    """Return the shards of a split in order; raises `ValueError` where one is absent."""
    for kind in ("array_record", "tfrecord"):
        pattern = re.compile(rf".+-{re.escape(split)}\.{kind}-\d{{5}}-of-(\d{{5}})")
        paths = sorted(at for at in root.iterdir() if pattern.fullmatch(at.name))
        wanted = int(paths[0].name[-5:]) if paths else 0
        if len(paths) < wanted:
            raise ValueError(
                f"{wanted - len(paths)} of {wanted} shards of {split} are not in {root}"
            )
        if paths:
            return paths
    raise ValueError(f"no shard in {root}: wanted files like name-{split}.tfrecord-00000-of-00001")


def space_name(name: str) -> str:
    """Return a class name with spaces for underscores."""
    return name.replace("_", " ")


class _Shelves:
    """The files in folders, each folder read once: cheaper than to ask for each of many files."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._by_stem: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """Return the path, or the path with another video extension, if there is such a file."""
        if self.hold(path):
            return path
        folder, name = os.path.split(path)
        other = self._by_stem[folder].get(_stem(name))
        return os.path.join(folder, other) if other else None

    def hold(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            names = _names(folder)
            videos = sorted(name for name in names if _stem(name) != name)
            self._names[folder] = names
            self._by_stem[folder] = {_stem(name): name for name in videos}
        return name in self._names[folder]


def _names(folder: str) -> set[str]:
    if storage.is_remote(folder):
        return storage.list_names(folder)
    seen = os.scandir(folder) if os.path.isdir(folder) else ()
    return {at.name for at in seen if at.is_file()}


def _stem(name: str) -> str:
    """Return a file's name without its extension, if that is a video's."""
    stem, end = os.path.splitext(name)
    return stem if end.lower() in EXTENSIONS else name
