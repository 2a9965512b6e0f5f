"""Benchmarks with their official annotations.

Nothing here imports JAX. A file may have another video extension than the published one, because
videos get transcoded.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.file_lists import (
    Listed,
    locate_videos,
    read_classes,
    read_lines,
    require_file,
    require_folder,
    underscores_to_spaces,
)
from vrl_jax.data.remote_paths import AnyPath
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
      root: folder with `<Class>/v_<Class>_g##_c##.avi`.
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
        alias = ("/v_HandStandPushups", "/v_HandstandPushups")
        candidates = ((path, label, (path, path.replace(*alias))) for path, label in rows)
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
        classes = [" ".join(parts) for parts in _read_json(lists / "Diving48_vocab.json")]
        rows = _read_json(lists / f"Diving48_V2_{part}.json")
        candidates = ((row["vid_name"], row["label"], (row["vid_name"] + ".mp4",)) for row in rows)
        return locate_videos(root, candidates, classes)


@dataclass(frozen=True)
class SomethingSomethingV2(Listed):
    """Something-Something V2; the test part is the published validation set.

    Its labels distinguish left and right, so videos are not mirrored.

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
        numbers = {
            name: int(number) for name, number in _read_json(lists / f"{stem}labels.json").items()
        }
        path = lists / f"{stem}{'validation' if part == 'test' else 'train'}.json"
        candidates = []
        for row in _read_json(path):
            name = row["template"].replace("[", "").replace("]", "")
            if name not in numbers:
                raise ValueError(f"{path}: video {row['id']} has an unknown template, {name!r}")
            candidates.append((row["id"], numbers[name], (row["id"] + ".webm",)))
        return locate_videos(root, candidates, sorted(numbers, key=numbers.get), mirror_safe=False)


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

    The class is that of the folder, because test lists have no labels.
    """
    check.one_of(("train", "test"), part=part)
    names, _ = read_classes(annotations / "classInd.txt")
    numbers = {name: number for number, name in enumerate(names)}
    paths = [line.split()[0] for _, line in read_lines(annotations / f"{part}list{split:02}.txt")]
    return names, [(path, numbers[path.split("/")[0]]) for path in paths]


def read_hmdb51(
    annotations: AnyPath, part: str, split: int
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Return the class names and the (path, class number) rows of a part of an official split.

    The list of a class marks each of its clips: 1 training, 2 test, 0 unused.
    """
    check.one_of(("train", "test", "unused"), part=part)
    code = {"unused": "0", "train": "1", "test": "2"}[part]
    end = f"_test_split{split}.txt"
    lists = [path for path in annotations.iterdir() if path.name.endswith(end)]
    classes = sorted(path.name.removesuffix(end) for path in lists)
    if not classes:
        raise ValueError(f"there is no file <class>{end} in {annotations}")
    rows = []
    for label, name in enumerate(classes):
        for number, line in read_lines(annotations / f"{name}{end}"):
            match = re.fullmatch(r"(.+?)\s+([012])", line)
            if not match:
                raise ValueError(
                    f"{annotations / (name + end)}, line {number}: must be like 'name.avi 1', got "
                    f"{line!r}"
                )
            if match[2] == code:
                rows.append((f"{name}/{match[1]}", label))
    return tuple(classes), rows


def read_kinetics(path: AnyPath) -> list[tuple[str, str]]:
    """Return the (name without extension, spaced class name) rows of an official csv file."""
    with io.StringIO(remote_paths.read_text(path)) as file:
        table = csv.DictReader(file)
        columns = ("label", "youtube_id", "time_start", "time_end")
        if missing := [name for name in columns if name not in (table.fieldnames or ())]:
            raise ValueError(f"{path} has no column {', '.join(missing)}: got {table.fieldnames}")
        rows = []
        for row in table:
            label, name, start, end = (row[column] or "" for column in columns)
            if not (label and start.isdigit() and end.isdigit()):
                raise ValueError(
                    f"{path}, line {table.line_num}: must have a label and times, got {row}"
                )
            rows.append((f"{name}_{int(start):06d}_{int(end):06d}", underscores_to_spaces(label)))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def _class_folders(label: str) -> Iterator[str]:
    """Yield the possible folders of a class' videos: none, or its name in various spellings."""
    yield ""
    for name in dict.fromkeys((label, re.sub(r"[()']", "", label))):
        yield from (f"{name}/", f"{name.replace(' ', '_')}/")


def _read_json(path: AnyPath) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return json.loads(path.read_text(encoding="utf-8"))
