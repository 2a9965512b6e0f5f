"""List files, and the files of videos and shards that they name.

Nothing here imports JAX. Names from lists and folders are never globbed or passed to a shell,
because real ones contain `[`, `!`, spaces and a leading `-`.
"""

import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.media_containers import IMAGES, ZippedFrames
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoDataset, VideoHandle, VideoList

# Of the videos that FFmpeg reads without further settings, in lower case. `.ogg` is left to audio.
EXTENSIONS = frozenset(
    (
        ".264 .265 .266 .3g2 .3gp .amv .apng .asf .av1 .avc .avi .avs2 .avs3 .bik .cavs .cdxl "
        ".dav .dif .divx .drc .dv .dvr-ms .evc .f4v .flc .fli .flv .gif .gxf .h261 .h263 "
        ".h264 .h265 .h266 .h26l .hevc .ifv .insv .ismv .ivf .ivr .kux .m1v .m2p .m2t .m2ts "
        ".m2v .m4v .mj2 .mjpeg .mjpg .mk3d .mkv .mod .moflex .mov .mp4 .mp4v .mpe .mpeg .mpg "
        ".mpv .mqv .mts .mxf .mxg .nsv .nut .obu .ogm .ogv .psp .qt .rm .rmvb .roq .smk .swf "
        ".tod .tp .trp .ts .ty .vc1 .viv .vob .vro .vvc .webm .wmv .wtv .xmv .xvid .y4m .zip"
    ).split()
)
PARTS = ("pretrain", "train", "test")
_PATH, _BETWEEN = r'("(?:[^"]|"")+"|.+?)', r"(?:\s*::\s*|[\s,]+)"
_FRAMES, _NUMBER = r'"?\d+"?', r'"?([+-]?\d+)"?'
COLUMNS = {
    "path label": re.compile(f"{_PATH}{_BETWEEN}{_NUMBER}"),
    "path frames label": re.compile(f"{_PATH}{_BETWEEN}{_FRAMES}{_BETWEEN}{_NUMBER}"),
    "path frames": re.compile(f"{_PATH}{_BETWEEN}{_FRAMES}"),
}
# Neighbours in official lists that sorted names of class folders exchange: UCF101's list ignores
# case, and Kinetics' list has brackets, which folders often lack.
OFFICIAL_ORDER = (
    ("UCF101", "Hammering", "HammerThrow"),
    ("UCF101", "JumpingJack", "JumpRope"),
    ("Kinetics", "skiing (not slalom or crosscountry)", "skiing crosscountry"),
)


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
    folders = _FolderCache()
    paths = [video.media.path for video in videos.videos]
    missing = [path for path in paths if not folders.has_file(path)]
    if missing:
        folders = (path for each in missing[:3] for path in (each, _stem(each)))
        frames = [path for path in folders if os.path.isdir(path) and holds_images(path)]
        hint = f"; {frames[0]} is a folder: pack its frames into one .zip file" if frames else ""
        raise ValueError(
            f"{len(missing)} of {len(paths)} listed videos are missing: "
            f"{', '.join(missing[:3])}{' ...' * (len(missing) > 3)}{hint}"
        )
    return videos


def locate_videos(
    root: AnyPath,
    rows: Iterable[tuple[str, int, Sequence[str]]],
    classes: Sequence[str],
    mirror_safe: bool = True,
) -> VideoList:
    """Return the videos of rows (id, class number, candidate paths in order of preference).

    The file may have another video extension than the path, because lists omit extensions and
    videos get transcoded. A missing video has its first path.
    """
    folders, videos = _FolderCache(), []
    for name, label, candidates in rows:
        paths = [os.path.join(root, candidate) for candidate in candidates]
        path = next(filter(None, map(folders.find, paths)), paths[0])
        videos.append(Video(remote_paths.to_text(name), open_handle(path), {"class": label}))
    return VideoList(tuple(videos), {"class": tuple(classes)}, mirror_safe)


def open_handle(path: str) -> VideoHandle:
    """Return the handle of a file; a zip file holds the frames of a video as images."""
    return ZippedFrames(path) if path.lower().endswith(".zip") else VideoFile(path)


def read_lines(path: AnyPath) -> list[tuple[int, str]]:
    """Return the stripped non-blank lines with their numbers, from 1."""
    if not remote_paths.is_file(path):
        raise ValueError(f"there is no file {path}")
    lines = remote_paths.read_text(path).split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_list(
    path: AnyPath, first_label: int = 0, columns: str = "path label"
) -> list[tuple[str, int | str]]:
    """Return the (path, class number from 0) rows of a list; see `ListFile` for its columns.

    In a list without labels, the class is the name of the video's folder, with spaces. There is one
    row for each of `read_lines`.
    """
    rows = []
    for number, line in read_lines(path):
        match = COLUMNS[columns].fullmatch(line)
        if not match:
            raise ValueError(f"{path}, line {number}: must be {columns!r}, got {line!r}")
        video = match[1]
        if len(video) > 2 and video[0] == video[-1] == '"':  # as csv files quote
            video = video[1:-1].replace('""', '"')
        folder = Path(video.replace("\\", "/")).parent.name
        label = match[2] if match.re.groups == 2 else underscores_to_spaces(folder)
        if match.re.groups == 2:
            label = int(label) - first_label
            if label < 0:
                raise ValueError(
                    f"{path}, line {number}: label must be at least {first_label}, got {match[2]}"
                )
        rows.append((video, label))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def cite_line(path: AnyPath, row: int) -> str:
    """Return file and line of a row of `read_list`, for errors."""
    return f"{path}, line {read_lines(path)[row][0]}"


def read_classes(path: AnyPath) -> tuple[tuple[str, ...], int]:
    """Return the class names and the first class number of a file of lines `[number] name`."""
    names = read_class_numbers(path)
    first = min(names, default=0)
    if list(names) != list(range(first, first + len(names))):
        raise ValueError(f"{path}: classes must be numbered without gaps from {first}")
    return tuple(names.values()), first


def read_class_numbers(path: AnyPath) -> dict[int, str]:
    """Return the class names by number, ascending; lines without numbers count from 0."""
    lines = [line for _, line in read_lines(path)]
    rows = [re.fullmatch(r"(\d+)[\s,]+(.+)", line) for line in lines]
    names = {int(row[1]): row[2] for row in rows} if all(rows) else dict(enumerate(lines))
    if len(names) < len(lines):
        raise ValueError(f"{path}: two classes have the same number")
    if "nan" in names.values():
        raise ValueError(f"{path}: 'nan' stands for a missing value, not for a class")
    return dict(sorted(names.items()))


def require_folder(key: str, path: str) -> AnyPath:
    """Return the folder of a config's field `key`; raises `ValueError` if it does not exist."""
    folder = remote_paths.to_path(path)
    if not path or not remote_paths.is_folder(folder):
        raise ValueError(
            f"{key} must be a folder, got {path!r}: pass --config.data.{key}=/path/to/{key}"
        )
    return folder


def require_file(key: str, path: str) -> AnyPath:
    """Return the file of a config's field `key`; raises `ValueError` if it does not exist."""
    file = remote_paths.to_path(path)
    if not path or not remote_paths.is_file(file):
        raise ValueError(
            f"{key} must be a file, got {path!r}: pass --config.data.{key}=/path/to/file"
        )
    return file


class Contents(NamedTuple):
    """Names of what a folder contains, sorted, without hidden entries and `__MACOSX`."""

    videos: list[str]
    others: list[str]
    folders: list[str]


def list_contents(folder: AnyPath) -> Contents:
    """Return the video files, the other files and the subfolders of a folder."""
    files, folders = (
        [name for name in names if not is_hidden(name)]
        for names in remote_paths.list_entries(folder)
    )
    videos = list(filter(is_video_name, files))
    others = sorted(set(files).difference(videos)) if len(videos) < len(files) else []
    return Contents(videos, others, folders)


def is_hidden(name: str) -> bool:
    """Return whether a name is of a hidden file or folder, or of those that macOS adds."""
    return name.startswith(".") or name == "__MACOSX"


def is_video_name(name: str) -> bool:
    """Return whether a file name ends like one of a video, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def list_folders(root: AnyPath) -> list[AnyPath]:
    """Return the subfolders of a folder, sorted by name with spaces; empty without the folder."""
    names = list_contents(root).folders if remote_paths.is_folder(root) else []
    return [root / name for name in sorted(names, key=lambda x: (underscores_to_spaces(x), x))]


def list_video_files(folder: AnyPath) -> list[AnyPath]:
    """Return the video files in a folder, sorted."""
    return [folder / name for name in list_contents(folder).videos]


def has_videos(folder: AnyPath) -> bool:
    """Return whether a folder has a video file; the first one ends the search on a local disk."""
    if remote_paths.is_remote(folder):
        return bool(list_video_files(folder))
    with os.scandir(folder) as entries:
        return any(
            is_video_name(entry.name) and not is_hidden(entry.name) and not entry.is_dir()
            for entry in entries
        )


def holds_images(folder: str | AnyPath) -> bool:
    """Return whether the first files of a folder are images, as in a folder of frames."""
    if remote_paths.is_remote(folder):
        return any(name.lower().endswith(IMAGES) for name in remote_paths.list_names(str(folder)))
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGES) for entry in itertools.islice(entries, 9))


@functools.cache
def warn_once(text: str) -> None:
    """Print a warning to standard error, once in a process: the parts of a data set repeat it."""
    print(f"warning: {text}", file=sys.stderr)


def warn_about_order(origin: str, classes: Sequence[str]) -> None:
    """Warn where sorted class names have another order than the numbers of official lists.

    Args:
      origin: folder or list of the classes, for the message.
      classes: names, sorted.
    """
    numbers = {_plain(name): number for number, name in enumerate(classes)}
    exchanged = [
        (benchmark, first, second)
        for benchmark, first, second in OFFICIAL_ORDER
        if numbers.get(_plain(first), -1) > numbers.get(_plain(second), len(classes))
    ]
    for benchmark, pairs in itertools.groupby(exchanged, lambda row: row[0]):
        texts = [f"{first!r} and {second!r}" for _, first, second in pairs]
        warn_once(
            f"{origin}: sorted names of class folders exchange {', '.join(texts)} as compared with "
            f"the official list of {benchmark}: identify classes by name, not by number"
        )
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        number, name = next(
            (number, name) for number, name in enumerate(classes) if number != int(name)
        )
        warn_once(
            f"{origin}: class folders named by numbers are sorted as text, so that {name!r} is "
            f"class {number}: identify classes by name, or pad the numbers with zeros"
        )


def list_shards(key: str, shards: str, pattern: str) -> list[AnyPath]:
    """Return the shards of a config's field `key`, sorted.

    Args:
      key: name of the field, for errors.
      shards: a folder, or a path as `expand_pattern` takes it.
      pattern: regular expression of the file names in the folder.

    Raises:
      ValueError: there are none, or any is missing.
    """
    folder = remote_paths.to_path(shards)
    if shards and remote_paths.is_folder(folder):
        names = remote_paths.list_entries(folder)[0]
        paths = [folder / name for name in names if re.fullmatch(pattern, name)]
        packed = [
            name for name in names if re.fullmatch(rf"({pattern})\.(gz|bz2|xz|zst|lz4)", name)
        ]
        packed += [name for name in names if name.endswith(".tgz")]
        if packed := [name for name in packed if os.path.splitext(name)[0] not in names]:
            raise ValueError(
                f"{key}: {len(packed)} shards in {shards} are compressed, such as {packed[0]}: "
                "unpack them, or pack plain .tar files"
            )
    else:
        paths = [remote_paths.to_path(path) for path in expand_pattern(shards) if path]
    if not paths:
        raise ValueError(
            f"{key} must be a folder of shards or a pattern, got {shards!r}: pass "
            f"--config.data.{key}=/path/to/name-{{000000..000123}}.tar"
        )
    folders = _FolderCache()
    if missing := [str(path) for path in paths if not folders.has_file(str(path))]:
        raise ValueError(
            f"{len(missing)} of {len(paths)} shards of {key} are missing: {', '.join(missing[:3])}"
        )
    return paths


def name_shards(paths: Sequence[AnyPath]) -> list[str]:
    """Return distinct names of shards: of their files or, where these repeat, from the folders."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    texts = [str(path) for path in paths]
    start = os.path.commonprefix(texts).rfind("/") + 1
    return [text[start:] for text in texts]


def expand_pattern(pattern: str) -> list[str]:
    """Return the paths of a pattern in which `{000..123}` counts, or that ends in `@64`."""
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


def list_tfds_splits(root: AnyPath) -> list[str]:
    """Return the splits with shards in a folder, sorted."""
    pattern = re.compile(r".+-(\w+)\.(?:array_record|tfrecord)-\d{5}-of-\d{5}")
    return sorted({match[1] for path in root.iterdir() if (match := pattern.fullmatch(path.name))})


def list_tfds_shards(root: AnyPath, split: str) -> list[AnyPath]:
    """Return the shards of a split in order; raises `ValueError` if any is missing."""
    for kind in ("array_record", "tfrecord"):
        pattern = re.compile(rf".+-{re.escape(split)}\.{kind}-\d{{5}}-of-(\d{{5}})")
        paths = sorted(path for path in root.iterdir() if pattern.fullmatch(path.name))
        count = int(paths[0].name[-5:]) if paths else 0
        if len(paths) < count:
            raise ValueError(f"{count - len(paths)} of {count} shards of {split} are not in {root}")
        if paths:
            return paths
    raise ValueError(
        f"no shards of {split} in {root}: expected files like name-{split}.tfrecord-00000-of-00001"
    )


def underscores_to_spaces(name: str) -> str:
    """Return a class name with underscores replaced by spaces."""
    return name.replace("_", " ")


def _plain(name: str) -> str:
    """Return a class name without the signs and the case in which spellings differ."""
    return re.sub(r"[\W_]", "", name).lower()


class _FolderCache:
    """Contents of folders, each read once, which is faster than testing many files one by one."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._by_stem: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """Return the path if the file exists, possibly with another video extension, or None."""
        if self.has_file(path):
            return path
        folder, name = os.path.split(path)
        other = self._by_stem[folder].get(_stem(name))
        return os.path.join(folder, other) if other else None

    def has_file(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            names = _file_names(folder)
            videos = sorted(name for name in names if _stem(name) != name)
            self._names[folder] = names
            self._by_stem[folder] = {_stem(name): name for name in videos}
        return name in self._names[folder]


def _file_names(folder: str) -> set[str]:
    if remote_paths.is_remote(folder):
        return remote_paths.list_names(folder)
    entries = os.scandir(folder) if os.path.isdir(folder) else ()
    return {entry.name for entry in entries if entry.is_file()}


def _stem(name: str) -> str:
    """Return a file name without its extension if that is a video extension."""
    stem, end = os.path.splitext(name)
    return stem if end.lower() in EXTENSIONS else name
