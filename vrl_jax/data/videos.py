"""Video files on disk as data sets: class folders, `path label` lists, UCF101, Weizmann.

Nothing here imports JAX. Names from lists and folders are never globbed or passed to a shell: `[`,
`!`, spaces and a leading `-` occur in real ones.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrl_jax import check
from vrl_jax.data import sample
from vrl_jax.data.decode import Excerpt, VideoFile
from vrl_jax.data.sources import Source, Video, VideoList

EXTENSIONS = frozenset(".avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .ts .webm .wmv .3gp".split())


@dataclass(frozen=True)
class ClassFolders:
    """Videos sorted into folders that are named after their classes, as Kinetics-400 comes.

    Class numbers follow the alphabet. Spaces and underscores in names are the same: names are
    compared and sorted with spaces. A class may be missing in one of the two splits.

    Attributes:
      root: folder with the two splits.
      train_folder: its folder of training videos, `<train_folder>/<class>/<video>`.
      test_folder: its folder of test videos.
    """

    root: str = ""
    train_folder: str = "train"
    test_folder: str = "val"

    def pretrain(self) -> Source:
        """Return the training videos, to learn a representation from."""
        return self.train()

    def train(self) -> Source:
        """Return the training videos; raises `ValueError` where there are none."""
        return self._split("train_folder", self.train_folder)

    def test(self) -> Source:
        """Return the test videos; raises `ValueError` where there are none."""
        return self._split("test_folder", self.test_folder)

    def _split(self, key: str, name: str) -> Source:
        root = _folder("root", self.root)
        split = _folder(key, str(root / name))
        both = (root / self.train_folder, root / self.test_folder)
        classes = sorted({_spaced(path.name) for at in both for path in _folders(at)})
        numbers = {name: number for number, name in enumerate(classes)}
        videos = tuple(
            Video(
                f"{folder.name}/{file.name}",
                VideoFile(str(file)),
                {"class": numbers[_spaced(folder.name)]},
            )
            for folder in _folders(split)
            for file in _videos(folder)
        )
        if not videos:
            raise ValueError(f"no video in {split}: wanted files like {split}/<class>/<video>.mp4")
        return VideoList(videos, {"class": tuple(classes)})


@dataclass(frozen=True)
class ListFile:
    """Videos named in text files with a line `path label` each, as most repositories have them.

    The label is the integer after the last space, tab or comma, so paths may hold spaces; line ends
    of any system, trailing blanks and empty lines are fine. Class names are the numbers.

    Attributes:
      root: folder that the paths start from (`/` where they are absolute).
      train_list: file that lists the training videos.
      test_list: file that lists the test videos.
      first_label: the number of the first class: 0, or 1 where a list counts from 1.
      mirror_safe: whether a horizontal flip leaves labels true (not where left and right matter).
    """

    root: str = ""
    train_list: str = ""
    test_list: str = ""
    first_label: int = 0
    mirror_safe: bool = True

    def pretrain(self) -> Source:
        """Return the training videos, to learn a representation from."""
        return self.train()

    def train(self) -> Source:
        """Return the training videos; raises `ValueError` naming what is missing."""
        return self._split("train_list")

    def test(self) -> Source:
        """Return the test videos; raises `ValueError` naming what is missing."""
        return self._split("test_list")

    def _split(self, wanted: str) -> Source:
        root = _folder("root", self.root)
        # Both lists, where there are two: their class numbers must mean the same.
        given = {"train_list": self.train_list, "test_list": self.test_list}
        rows = {
            key: read_list(_file(key, path), self.first_label)
            for key, path in given.items()
            if path or key == wanted
        }
        count = 1 + max(label for listed in rows.values() for _, label in listed)
        classes = tuple(str(number + self.first_label) for number in range(count))
        return _listed(root, rows[wanted], classes, mirror_safe=self.mirror_safe)


@dataclass(frozen=True)
class UCF101:
    """UCF101 with its official splits.

    Attributes:
      root: folder with `<Class>/v_<Class>_g##_c##.avi`.
      annotations: folder with `classInd.txt`, `trainlist0#.txt` and `testlist0#.txt`.
      split: 1, 2 or 3.
    """

    root: str = ""
    annotations: str = ""
    split: int = 1

    def __post_init__(self) -> None:
        """Refuse a split that does not exist."""
        check.one_of((1, 2, 3), split=self.split)

    def pretrain(self) -> Source:
        """Return the training videos, to learn a representation from."""
        return self.train()

    def train(self) -> Source:
        """Return the training videos; raises `ValueError` naming what is missing."""
        return self._split("train")

    def test(self) -> Source:
        """Return the test videos; raises `ValueError` naming what is missing."""
        return self._split("test")

    def _split(self, part: str) -> Source:
        root = _folder("root", self.root)
        classes, rows = read_ucf101(_folder("annotations", self.annotations), part, self.split)
        # The lists write HandStand where the archive's own file names have Handstand.
        alias = ("/v_HandStandPushups", "/v_HandstandPushups")
        return _listed(root, rows, classes, alias)


@dataclass(frozen=True)
class Weizmann:
    """Weizmann actions: 10 classes by 9 persons, one clip each.

    All splits hold the same 90 clips: whole to pretrain on, cut into windows to train and test on.
    Judge by leaving out one value of the label `person` at a time; a random split leaks person and
    background.

    Attributes:
      root: folder with `<class>/<person>_<class>.avi`.
      frames: length of the test windows, which follow each other without overlap.
    """

    root: str = ""
    frames: int = 16

    def __post_init__(self) -> None:
        """Refuse windows without a frame."""
        check.at_least(1, frames=self.frames)

    def pretrain(self) -> Source:
        """Return the whole clips; raises `ValueError` where there are none."""
        root = _folder("root", self.root)
        files = [(folder.name, file) for folder in _folders(root) for file in _videos(folder)]
        if not files:
            raise ValueError(f"no video in {root}: wanted files like bend/daria_bend.avi")
        classes = tuple(sorted({action for action, _ in files}))
        persons = tuple(sorted({_person(file) for _, file in files}))
        videos = tuple(
            Video(
                f"{action}/{file.stem}",
                VideoFile(str(file)),
                {"class": classes.index(action), "person": persons.index(_person(file))},
            )
            for action, file in files
        )
        return VideoList(videos, {"class": classes, "person": persons})

    def train(self) -> Source:
        """Return the windows; opens every clip for its length, so `VideoError` may be raised."""
        whole = self.pretrain()
        cuts = []
        for index in range(len(whole)):
            video = whole[index]
            with video.media.open() as reader:
                starts = sample.windows(reader.num_frames, self.frames)
            cuts += [
                Video(f"{video.id}/{at}", Excerpt(video.media, at, at + self.frames), video.labels)
                for at in starts
            ]
        return VideoList(tuple(cuts), whole.classes)

    def test(self) -> Source:
        """Return the same windows."""
        return self.train()


def read_list(path: Path, first_label: int = 0) -> list[tuple[str, int]]:
    """Return the (path, class number from 0) rows of a `path label` list."""
    rows = []
    for number, line in _lines(path):
        match = re.fullmatch(r"(.+?)[\s,]+([+-]?\d+)", line)
        if not match:
            raise ValueError(f"{path}, line {number}: wanted 'path label', got {line!r}")
        if int(match[2]) < first_label:
            raise ValueError(
                f"{path}, line {number}: label {match[2]} is below first_label={first_label}"
            )
        rows.append((match[1], int(match[2]) - first_label))
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def read_ucf101(
    annotations: Path, part: str, split: int
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Return the class names and the (path, class number from 0) rows of an official list.

    The class is the folder's: test lists carry no label, and the training lists' (from 1) agrees.
    """
    check.one_of(("train", "test"), part=part)
    names = [line.split()[1] for _, line in _lines(annotations / "classInd.txt")]
    numbers = {name: number for number, name in enumerate(names)}
    paths = [line.split()[0] for _, line in _lines(annotations / f"{part}list{split:02}.txt")]
    return tuple(names), [(path, numbers[path.split("/")[0]]) for path in paths]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _listed(
    root: Path,
    rows: Sequence[tuple[str, int]],
    classes: tuple[str, ...],
    alias: tuple[str, str] = ("", ""),
    mirror_safe: bool = True,
) -> Source:
    """Return the listed videos, by their own or their alias' file name; refuse absent ones."""
    videos, absent = [], []
    for path, label in rows:
        names = (path, path.replace(*alias))
        file = next((root / name for name in names if (root / name).is_file()), None)
        if file:
            videos.append(Video(path, VideoFile(str(file)), {"class": label}))
        else:
            absent.append(path)
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(rows)} listed videos are not in {root}: "
            f"{', '.join(absent[:3])}{' ...' * (len(absent) > 3)}"
        )
    return VideoList(tuple(videos), {"class": classes}, mirror_safe)


def _folder(key: str, path: str) -> Path:
    if not path or not Path(path).is_dir():
        raise ValueError(
            f"{key} must be a folder, got {path!r}: pass --config.data.{key}=/path/to/{key}"
        )
    return Path(path)


def _file(key: str, path: str) -> Path:
    if not path or not Path(path).is_file():
        raise ValueError(
            f"{key} must be a file, got {path!r}: pass --config.data.{key}=/path/to/file"
        )
    return Path(path)


def _folders(root: Path) -> list[Path]:
    """Return the folders in a folder, in the order of their spaced names; none without it."""
    folders = [at for at in root.iterdir() if at.is_dir()] if root.is_dir() else []
    seen = [at for at in folders if not at.name.startswith(".")]
    return sorted(seen, key=lambda at: (_spaced(at.name), at.name))


def _videos(folder: Path) -> list[Path]:
    """Return the video files in a folder, sorted."""
    return sorted(
        at
        for at in folder.iterdir()
        if at.suffix.lower() in EXTENSIONS and not at.name.startswith(".")
    )


def _person(file: Path) -> str:
    return file.stem.partition("_")[0]


def _spaced(name: str) -> str:
    return name.replace("_", " ")
