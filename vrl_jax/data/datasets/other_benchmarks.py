"""Benchmarks of gymnastics and of daily actions: FineGym-99, NTU RGB+D 60, Charades.

Nothing here imports JAX. Jester's lists are read by `ListFile`.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import name_classes, read_lines, warn_once
from vrl_jax.data.datasets.file_lists import Listed, locate_videos, open_handle, require_folder
from vrl_jax.data.datasets.folder_contents import list_contents
from vrl_jax.data.datasets.text_lists import cite_line, read_list
from vrl_jax.data.remote_paths import AnyPath, to_text
from vrl_jax.data.video_dataset import Video, VideoList

NTU_CLASSES = 60
NTU_SUBJECTS = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)  # that train
NTU_CAMERAS = (2, 3)  # that train
NTU_NAME = re.compile(r"S\d{3}C(\d{3})P(\d{3})R\d{3}A(\d{3})(_rgb)?\.\w+", re.IGNORECASE)


@dataclass(frozen=True)
class FineGym99(Listed):
    """FineGym-99; the test part is the published validation set.

    Attributes:
      root: folder with `<id>.mp4`, one file for each element, such as
        `A0xAXXysHUo_E_002184_002237_A_0035_0036.mp4`.
      annotations: folder with `gym99_train_element_v1.1.txt`, `gym99_val_element.txt` and
        `gym99_categories.txt`.
    """

    benchmark: ClassVar[str] = "gym99"

    root: str = ""
    annotations: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the elements of the official list."""
        root = require_folder("root", self.root)
        lists = require_folder("annotations", self.annotations)
        path = lists / f"gym99_{'val_element' if part == 'test' else 'train_element_v1.1'}.txt"
        rows = read_list(path)
        names = _read_categories(lists / "gym99_categories.txt")
        numbers = name_classes(names).number_labels(
            [label for _, label in rows], lambda row: cite_line(path, row)
        )
        if numbers is None:
            raise ValueError(f"{path}: its elements must have labels")
        candidates = (
            (name, number, (f"{name}.mp4",))
            for (name, _), number in zip(rows, numbers, strict=True)
        )
        return locate_videos(root, candidates, names)


@dataclass(frozen=True)
class NTU60(Listed):
    """NTU RGB+D, 60 actions of 40 persons in front of three cameras.

    The classes have the names of the files, `A001` to `A060`. Videos have the labels `person` and
    `camera` as well.

    Attributes:
      root: folder with `S###C###P###R###A###_rgb.avi`, or with folders of them.
      protocol: "xsub", other persons in the test, or "xview", another camera in the test.
    """

    benchmark: ClassVar[str] = "ntu60"

    root: str = ""
    protocol: str = "xsub"

    def __post_init__(self) -> None:
        """Check the protocol."""
        check.one_of(("xsub", "xview"), protocol=self.protocol)

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the official split; raises `ValueError` if there are none."""
        root = require_folder("root", self.root)
        inner = (root / name for name in list_contents(root).folders)
        paths = (path / name for path in (root, *inner) for name in list_contents(path).videos)
        videos, others = [], []
        for path in sorted(paths, key=lambda path: path.name):
            match = NTU_NAME.fullmatch(path.name)
            if not match or not 1 <= int(match[3]) <= NTU_CLASSES:
                others.append(path)
                continue
            camera, person, action = (int(text) for text in match.groups()[:3])
            train = person in NTU_SUBJECTS if self.protocol == "xsub" else camera in NTU_CAMERAS
            if train == (part == "train"):
                labels = {"class": action - 1, "person": person - 1, "camera": camera - 1}
                videos.append(Video(path.name.partition(".")[0], open_handle(str(path)), labels))
        if not videos:
            raise ValueError(
                f"no video in {root}: expected files like S001C001P001R001A001_rgb.avi"
            )
        if others:
            warn_once(
                f"{root}: left out {len(others)} videos that are not of the 60 classes, such as "
                f"{to_text(others[0].name)}"
            )
        classes = {
            "class": tuple(f"A{number:03}" for number in range(1, NTU_CLASSES + 1)),
            "person": tuple(f"P{number:03}" for number in range(1, 41)),
            "camera": tuple(f"C{number:03}" for number in range(1, 4)),
        }
        return VideoList(tuple(videos), classes, left_out=len(others))


@dataclass(frozen=True)
class Charades(Listed):
    """Charades: videos with any number of 157 actions, from none.

    The times of the actions are not used. Evaluations measure mean average precision, see `Probes`.

    Attributes:
      root: folder with `<id>.mp4`.
      annotations: folder with `Charades_v1_classes.txt`, `Charades_v1_train.csv` and
        `Charades_v1_test.csv`.
    """

    benchmark: ClassVar[str] = "charades"

    root: str = ""
    annotations: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the official list."""
        root = require_folder("root", self.root)
        lists = require_folder("annotations", self.annotations)
        names = dict(
            line.partition(" ")[::2] for _, line in read_lines(lists / "Charades_v1_classes.txt")
        )
        numbers = {code: number for number, code in enumerate(names)}
        candidates = (
            (video, actions, (f"{video}.mp4",))
            for video, actions in _read_actions(lists / f"Charades_v1_{part}.csv", numbers)
        )
        return locate_videos(root, candidates, tuple(names.values()))


def _read_actions(
    path: AnyPath, numbers: Mapping[str, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the id and the class numbers of each video of an official csv file."""
    if not remote_paths.is_file(path):
        raise ValueError(f"there is no file {path}")
    table = csv.DictReader(io.StringIO(remote_paths.read_text(path)))
    if missing := [name for name in ("id", "actions") if name not in (table.fieldnames or ())]:
        raise ValueError(f"{path} has no column {', '.join(missing)}: got {table.fieldnames}")
    for row in table:
        actions = [text.split() for text in (row["actions"] or "").split(";") if text.strip()]
        if any(len(action) not in (1, 3) for action in actions):
            raise ValueError(
                f"{path}, line {table.line_num}: actions must be like 'c092 11.90 21.20;c147 0.00 "
                f"12.60', got {row['actions']!r}"
            )
        codes = {action[0] for action in actions}
        if unknown := sorted(codes.difference(numbers)):
            raise ValueError(f"{path}, line {table.line_num}: there is no class {unknown[0]!r}")
        yield row["id"], tuple(sorted(numbers[code] for code in codes))


def _read_categories(path: AnyPath) -> tuple[str, ...]:
    """Return the class names of lines like `Clabel: 0; set: 1; Glabel: 1; (VT) round-off, ...`."""
    names = []
    for number, line in read_lines(path):
        match = re.fullmatch(r"Clabel:\s*(\d+);.*?Glabel:\s*\d+;\s*(.+)", line)
        if not match or int(match[1]) != len(names):
            raise ValueError(
                f"{path}, line {number}: must be 'Clabel: {len(names)}; set: ...; Glabel: ...; "
                f"name', got {line!r}"
            )
        names.append(match[2])
    return tuple(names)
