"""Benchmarks with their official annotations.

Nothing here imports JAX. A file may have another video extension than the published one, because
videos get transcoded.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import read_class_numbers, read_lines, underscores_to_spaces
from vrl_jax.data.datasets.file_lists import Listed, locate_videos, require_file, require_folder
from vrl_jax.data.datasets.folder_contents import is_hidden, is_video_name
from vrl_jax.data.remote_paths import AnyPath, to_text
from vrl_jax.data.video_dataset import VideoList


@dataclass(frozen=True)
class _ThreeSplits(Listed):
    root: str = ""
    annotations: str = ""
    split: int = 1

    def __post_init__(self) -> None:
        check.one_of((1, 2, 3), split=self.split)


@dataclass(frozen=True)
class UCF101(_ThreeSplits):
    """UCF101 with its official splits.

    Attributes:
      root: folder with `<Class>/v_<Class>_g##_c##.avi`, or with all files in it.
      annotations: folder with `classInd.txt`, `trainlist0#.txt` and `testlist0#.txt`.
      split: 1, 2 or 3.
    """

    benchmark: ClassVar[str] = "ucf101"

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the official list."""
        root = require_folder("root", self.root)
        folder = require_folder("annotations", self.annotations)
        classes, rows = read_ucf101(folder, part, self.split)
        # Some lists have HandStand where the file names in the archive have Handstand.
        alias = ("v_HandStandPushups", "v_HandstandPushups")
        spellings = ((path, label, (path, path.replace(*alias))) for path, label in rows)
        candidates = (
            (path, label, (*paths, *map(os.path.basename, paths)))
            for path, label, paths in spellings
        )
        return locate_videos(root, candidates, classes)


@dataclass(frozen=True)
class HMDB51(_ThreeSplits):
    """HMDB51 with its official splits: 70 training and 30 test clips of each class.

    Attributes:
      root: folder with `<class>/<name>.avi`.
      annotations: folder with `<class>_test_split#.txt`.
      split: 1, 2 or 3.
    """

    benchmark: ClassVar[str] = "hmdb51"

    def list_videos(self, part: str) -> VideoList:
        """Return the clips of the official lists."""
        root = require_folder("root", self.root)
        folder = require_folder("annotations", self.annotations)
        classes, rows = read_hmdb51(folder, part, self.split)
        return locate_videos(root, ((path, label, (path,)) for path, label in rows), classes)


@dataclass(frozen=True)
class Diving48(Listed):
    """Diving48 V2: 47 of its 48 classes have videos.

    Attributes:
      root: the data set's folder.
      annotations: folder with `Diving48_vocab.json`, `Diving48_V2_train.json` and
        `Diving48_V2_test.json`.
      folder: folder in `root` with `<vid_name>.mp4`.
    """

    benchmark: ClassVar[str] = "diving48"

    root: str = ""
    annotations: str = ""
    folder: str = "rgb"

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the V2 annotations."""
        root = require_folder("folder", str(require_folder("root", self.root) / self.folder))
        lists = require_folder("annotations", self.annotations)
        classes = _read_vocabulary(lists / "Diving48_vocab.json")
        candidates = []
        for where, entry in _read_entries(lists / f"Diving48_V2_{part}.json"):
            name, label = _read_name(where, entry, "vid_name"), _read_class(where, entry, classes)
            stem = os.path.splitext(name)[0] if is_video_name(name) else name
            candidates.append((stem, label, (f"{stem}.mp4",)))
        return locate_videos(root, candidates, classes)


@dataclass(frozen=True)
class SomethingSomethingV2(Listed):
    """Something-Something V2; the test part is the published validation set.

    Its labels distinguish left and right, so videos are not mirrored. Classes are numbered from 0
    in the order of their numbers in the labels, which a subset may have with gaps.

    Attributes:
      root: folder with `<id>.webm`.
      annotations: folder with `something-something-v2-labels.json`, `-train.json` and
        `-validation.json`, or with `labels.json`, `train.json` and `validation.json`.
    """

    benchmark: ClassVar[str] = "ssv2"

    root: str = ""
    annotations: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the annotations."""
        root = require_folder("root", self.root)
        lists = require_folder("annotations", self.annotations)
        published = (lists / "something-something-v2-labels.json").is_file()
        stem = "something-something-v2-" if published else ""
        classes = _read_templates(lists / f"{stem}labels.json")
        numbers = {name: number for number, name in enumerate(classes)}
        path = lists / f"{stem}{'validation' if part == 'test' else 'train'}.json"
        candidates = []
        for where, entry in _read_entries(path):
            video = _read_name(where, entry, "id")
            name = _without_brackets(entry.get("template") or entry.get("label"))
            if name not in numbers:
                raise ValueError(f"{where}: video {video} has an unknown template, {name!r}")
            candidates.append((video, numbers[name], (f"{video}.webm",)))
        return locate_videos(root, candidates, classes, mirror_safe=False)


@dataclass(frozen=True)
class Kinetics400(Listed):
    """Kinetics-400 (or another Kinetics) with its csv annotations.

    Videos are named `<youtube_id>_<start>_<end>.mp4`, times in seconds with 6 digits. They are in
    the folder of the split or in class folders in it, named with spaces or underscores. Classes are
    numbered alphabetically. A missing video is an error; many copies lack some.

    Attributes:
      root: folder with the two splits.
      train_list: csv file with the columns label, youtube_id, time_start and time_end.
      test_list: the same for the test videos.
      train_folder: folder of the training videos in `root`.
      test_folder: folder of the test videos in `root`.
    """

    benchmark: ClassVar[str] = "k400"

    root: str = ""
    train_list: str = ""
    test_list: str = ""
    train_folder: str = "train"
    test_folder: str = "val"

    def list_videos(self, part: str) -> VideoList:
        """Return the clips of the csv file."""
        root = require_folder("root", self.root)
        folder = getattr(self, f"{part}_folder")
        rows = self._both(part, "list", lambda key, path: read_kinetics(require_file(key, path)))
        classes = sorted({label for part_rows in rows.values() for _, label in part_rows})
        numbers = {name: number for number, name in enumerate(classes)}
        candidates = (
            (name, numbers[label], [f"{folder}/{end}{name}.mp4" for end in _class_folders(label)])
            for name, label in rows[part]
        )
        return locate_videos(root, candidates, classes)


def read_ucf101(
    annotations: AnyPath, part: str, split: int
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Return the class names and the (path, class number from 0) rows of an official list.

    The class is that of the folder, or of the file name in a list without folders, because test
    lists have no labels. Paths are `<Class>/<file>`.
    """
    check.one_of(("train", "test"), part=part)
    names = tuple(read_class_numbers(annotations / "classInd.txt").values())
    numbers = {name.lower(): number for number, name in enumerate(names)}
    path, rows = annotations / f"{part}list{split:02}.txt", []
    for line_number, line in read_lines(path):
        *_, folder, file = ("", *re.split(r"[\s,]+", line)[0].replace("\\", "/").split("/"))
        in_name = re.match(r"v_([A-Za-z]+)_g\d", file)
        if folder.lower() not in numbers and in_name:
            own = [name for name in names if name.lower() == in_name[1].lower()]
            folder = (*own, in_name[1])[0]
        if folder.lower() not in numbers:
            raise ValueError(
                f"{path}, line {line_number}: classInd.txt has no class {folder!r}, got {line!r}"
            )
        rows.append((f"{folder}/{file}", numbers[folder.lower()]))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return names, rows


def read_hmdb51(
    annotations: AnyPath, part: str, split: int
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Return the class names and the (path, class number) rows of a part of an official split.

    The list of a class marks each of its clips: 1 training, 2 test, 0 unused.
    """
    check.one_of(("train", "test", "unused"), part=part)
    code = {"unused": "0", "train": "1", "test": "2"}[part]
    end = f"_test_split{split}.txt"
    lists = [
        path
        for path in annotations.iterdir()
        if path.name.endswith(end) and not is_hidden(path.name)
    ]
    classes = sorted(path.name.removesuffix(end) for path in lists)
    if not classes:
        raise ValueError(f"there is no file <class>{end} in {annotations}")
    rows = []
    for label, name in enumerate(classes):
        lines = read_lines(annotations / f"{name}{end}")
        if not lines:
            raise ValueError(f"{annotations / (name + end)} lists no video")
        for number, line in lines:
            match = re.fullmatch(r"(.+?)\s+([012])", line)
            if not match:
                raise ValueError(
                    f"{annotations / (name + end)}, line {number}: must be like 'name.avi 1', got "
                    f"{line!r}"
                )
            if match[2] == code:
                rows.append((f"{name}/{match[1]}", label))
    return tuple(map(to_text, classes)), rows


def read_kinetics(path: AnyPath) -> list[tuple[str, str]]:
    """Return the (name without extension, spaced class name) rows of an official csv file.

    Columns may be separated by commas, semicolons or tabs.
    """
    text = remote_paths.read_text(path)
    head = text.partition("\n")[0]
    table = csv.DictReader(
        io.StringIO(text), delimiter=max(",;\t", key=head.count), skipinitialspace=True
    )
    table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
    columns = ("label", "youtube_id", "time_start", "time_end")
    if missing := [name for name in columns if name not in table.fieldnames]:
        raise ValueError(f"{path} has no column {', '.join(missing)}: got {table.fieldnames}")
    rows = []
    for row in table:
        label, name, *times = ((row[column] or "").strip() for column in columns)
        whole = [re.fullmatch(r"(\d+)(?:\.0+)?", time) for time in times]
        if label in ("", "nan") or not re.fullmatch(r"[\w-]+", name) or not all(whole):
            raise ValueError(
                f"{path}, line {table.line_num}: must have a label and times in whole seconds, "
                f"and the id of a video, got {row}"
            )
        start, end = (int(match[1]) for match in whole)
        rows.append((f"{name}_{start:06d}_{end:06d}", underscores_to_spaces(label)))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def _class_folders(label: str) -> Iterator[str]:
    """Yield the possible folders of a class' videos: none, or its name in various spellings."""
    yield ""
    for name in dict.fromkeys((label, re.sub(r"[()']", "", label))):
        yield from (f"{name}/", f"{name.replace(' ', '_')}/")


def _without_brackets(template: Any) -> str:
    return str(template).replace("[", "").replace("]", "")


def _read_vocabulary(path: AnyPath) -> list[str]:
    """Return the class names of Diving48, each stored as text or as a list of parts."""
    entries = _read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must be a list of classes, got {str(entries)[:50]}")
    names = [parts if isinstance(parts, list) else [parts] for parts in entries]
    for number, parts in enumerate(names):
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{path}, class {number}: must be text or a list of it, got {parts}")
    return list(map(" ".join, names))


def _read_templates(path: AnyPath) -> list[str]:
    """Return the class names of Something-Something in the order of their numbers."""
    labels = _read_json(path)
    if not isinstance(labels, dict | list) or not labels:
        raise ValueError(f"{path} must be an object or a list of classes, got {str(labels)[:50]}")
    if isinstance(labels, list):
        return _distinct(path, map(_without_brackets, labels))
    numbers = {}
    for name, number in labels.items():
        if not str(number).isdecimal() or int(number) in numbers:
            raise ValueError(f"{path}: {name!r} must have a number of its own, got {number!r}")
        numbers[int(number)] = name
    return _distinct(path, (_without_brackets(numbers[number]) for number in sorted(numbers)))


def _distinct(path: AnyPath, names: Iterable[str]) -> list[str]:
    """Return the class names of a file; raises `ValueError` if two are the same."""
    names = list(names)
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(f"{path}: two classes have the same name, {name!r}")
    return names


def _read_entries(path: AnyPath) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a JSON list, each with its file and number for errors."""
    entries = _read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must be a list of at least one video, got {str(entries)[:50]}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, entry {number}: must be an object, got {entry!r}")
        yield f"{path}, entry {number}", entry


def _read_name(where: str, entry: Mapping[str, Any], key: str) -> str:
    """Return the name under a key, which may be stored as a number."""
    name = entry.get(key)
    if type(name) not in (str, int) or name == "":
        raise ValueError(f"{where}: {key} must be the name of a video, got {name!r}")
    return str(name)


def _read_class(where: str, entry: Mapping[str, Any], classes: Sequence[str]) -> int:
    """Return the class number under the key `label`, which may be stored as text."""
    label = entry.get("label")
    if not re.fullmatch(r"\d+", str(label)) or int(label) >= len(classes):
        raise ValueError(f"{where}: label must be 0 to {len(classes) - 1}, got {label!r}")
    return int(label)


def _read_json(path: AnyPath) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return json.loads(remote_paths.read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
