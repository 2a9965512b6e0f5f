"""Video files on disk: class folders, `path label` lists, Weizmann.

Nothing here imports JAX.
"""

import os
from dataclasses import dataclass
from functools import partial
from itertools import chain

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.datasets.class_names import (
    ClassNumbers,
    Label,
    number_classes,
    underscores_to_spaces,
    warn_about_order,
    warn_once,
)
from vrl_jax.data.datasets.file_lists import (
    PARTS,
    Listed,
    locate_videos,
    open_handle,
    part_error,
    require_file,
    require_folder,
)
from vrl_jax.data.datasets.folder_contents import (
    Contents,
    has_videos,
    holds_images,
    list_contents,
    list_folders,
    list_video_files,
)
from vrl_jax.data.datasets.text_lists import COLUMNS, cite_line, read_list
from vrl_jax.data.remote_paths import AnyPath, is_folder, to_text
from vrl_jax.data.video.video_decoder import Excerpt, VideoFile
from vrl_jax.data.video_dataset import MissingPart, Video, VideoDataset, VideoList


@dataclass(frozen=True)
class ClassFolders(Listed):
    """Videos in one folder per class, the layout of Kinetics-400, or in one folder without labels.

    Classes are numbered alphabetically. Underscores in class names count as spaces. A class may be
    missing in one of the two splits; a folder without videos is no class. Videos without class
    folders have no labels. A `root` with neither of the splits contains the training videos itself.
    Hidden files are skipped, and a warning counts what else is left out: videos elsewhere and files
    of other kinds.

    Attributes:
      root: folder with the two splits.
      train_folder: folder of the training videos in `root`, `<train_folder>/<class>/<video>`.
      test_folder: folder of the test videos in `root`; without `val` there are none.
    """

    root: str = ""
    train_folder: str = "train"
    test_folder: str = "val"

    def list_videos(self, part: str) -> VideoList:
        """Return the video files in the part's folder."""
        root = require_folder("root", self.root)
        split = self._find_split(root, part)
        other = root / (self.train_folder if part == "test" else self.test_folder)
        contents = {folder: list_contents(folder) for folder in list_folders(split)}
        folders = [folder for folder, inside in contents.items() if inside.videos]
        above = list_contents(split)
        unlabelled = [] if folders else above.videos
        above = above._replace(videos=[]) if unlabelled else above
        left_out, misplaced = _describe_left_out(split, above, contents)
        if left_out and (folders or (unlabelled and not misplaced)):
            warn_once(f"{split}: left out {left_out}")
        if unlabelled and not misplaced:
            paths = ((to_text(name), os.path.join(split, name)) for name in unlabelled)
            return VideoList(tuple(Video(name, open_handle(path), {}) for name, path in paths), {})
        elsewhere = [folder for folder in list_folders(other) if has_videos(folder)]
        classes = sorted({_class_name(folder) for folder in (*folders, *elsewhere)})
        numbers = {name: number for number, name in enumerate(classes)}
        videos = tuple(
            Video(to_text(f"{folder.name}/{name}"), open_handle(os.path.join(folder, name)), label)
            for folder in folders
            for label in ({"class": numbers[_class_name(folder)]},)
            for name in contents[folder].videos
        )
        if not videos:
            raise ValueError(
                f"no video in {split}: expected files like {split}/<class>/<video>.mp4, got "
                f"{left_out or 'nothing'}"
            )
        warn_about_order(str(root), classes)
        return VideoList(videos, {"class": tuple(classes)}, left_out=misplaced)

    def _find_split(self, root: AnyPath, part: str) -> AnyPath:
        """Return the folder of a part; raises `MissingPart` or `ValueError` if there is none."""
        key = f"{part}_folder"
        split, error = root / getattr(self, key), part_error(self, key)
        if is_folder(split):
            return split
        folders = list_folders(root)
        whole = part == "train" and error is MissingPart and not is_folder(root / self.test_folder)
        if whole and any(has_videos(folder) for folder in (root, *folders)):
            return root
        names = ", ".join(to_text(folder.name) for folder in folders)
        raise error(
            f"{root} must have a folder {split.name!r}, got {names or 'none'}: pass "
            f"--config.data.{key}=<name>"
        )


@dataclass(frozen=True)
class ListFile(Listed):
    """Videos listed in text files, one per line, the format of most repositories.

    Labels come last, after spaces, tabs, a comma, a semicolon or `::`, so paths may contain spaces.
    They are class numbers, or class names, of which all are named or none. -1 is no label, and
    lines may be paths alone: lists without labels serve for pretraining. Line ends of any system,
    trailing blanks and empty lines are accepted. Paths may lack the extension, and files may have
    another one. Without `classes`, named classes are in alphabetical order, and the names of others
    are their numbers.

    Attributes:
      root: folder that paths are relative to (`/` for absolute paths).
      train_list: file that lists the training videos.
      test_list: file that lists the test videos; "" for none.
      first_label: number of the first class in the lists; -1: as in `classes`, or 0.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
      columns: "path label", "path frames label", "path", or "path frames" where a video's folder is
        its class; the number of frames is not used. Paths alone need "path" only if they have no
        extension of a video.
      classes: file of lines `name`, `number name` or `name number` with the names of the classes.
    """

    root: str = ""
    train_list: str = ""
    test_list: str = ""
    first_label: int = -1
    mirror_safe: bool = True
    columns: str = "path label"
    classes: str = ""

    def __post_init__(self) -> None:
        """Check the columns and the first label."""
        check.one_of(tuple(COLUMNS), columns=self.columns)
        check.at_least(-1, first_label=self.first_label)

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the list."""
        root = require_folder("root", self.root)

        def read(key: str, path: str) -> list[tuple[str, Label]]:
            return read_list(require_file(key, path), self.columns)

        rows = self._both(part, "list", read)
        labels = {key: [label for _, label in each] for key, each in rows.items()}
        classes = self._number_classes(list(chain(*labels.values())), part)
        numbers = {
            key: classes.number_labels(each, partial(self._cite, key))
            for key, each in labels.items()
        }[part]
        paths = [path for path, _ in rows[part]]
        candidates = (
            (path, number, (path, path.replace("\\", "/")))
            for path, number in zip(paths, numbers or [None] * len(paths), strict=True)
        )
        return locate_videos(root, candidates, classes.names if numbers else (), self.mirror_safe)

    def _number_classes(self, labels: list[Label], part: str) -> ClassNumbers:
        """Return the classes.

        Raises:
          ValueError: most classes have no video, as where a column counts frames.
        """
        file = require_file("classes", self.classes) if self.classes else None
        first = None if self.first_label < 0 else self.first_label
        classes = number_classes(labels, file, first)
        stored, numbers = list(classes.numbers), set(labels).intersection(classes.numbers)
        numbered = numbers and not file and isinstance(stored[0], int)
        if numbered and (len(numbers) < len(stored) / 2 or not numbers.intersection(stored[:2])):
            raise ValueError(
                f"{self.train_list or self.test_list}: only {len(numbers)} of the labels "
                f"{stored[0]} to {stored[-1]} occur: if the column counts frames, pass "
                "--config.data.columns='path frames'; if the other classes have no video, pass "
                "--config.data.classes=/path/to/names"
            )
        if self.columns == "path frames" and not file:
            warn_about_order(getattr(self, f"{part}_list"), classes.names)
        return classes

    def _cite(self, key: str, row: int) -> str:
        return cite_line(require_file(f"{key}_list", getattr(self, f"{key}_list")), row)


@dataclass(frozen=True)
class Weizmann(Listed):
    """Weizmann actions: one clip of each of 10 classes by each of 9 persons.

    All parts contain the same 90 clips: whole for pretraining, cut into windows for training and
    testing. Evaluate by leaving out one value of the label `person` at a time, because a random
    split leaks person and background.

    Attributes:
      root: folder with `<class>/<person>_<class>.avi`.
      frames: length of the windows, which are consecutive and do not overlap.
    """

    root: str = ""
    frames: int = 16

    def __post_init__(self) -> None:
        """Check the length of windows."""
        check.at_least(1, frames=self.frames)

    def list_part(self, part: str) -> VideoList:
        """Return the whole clips of any part; raises `ValueError` if there are none."""
        check.one_of(PARTS, part=part)
        root = require_folder("root", self.root)
        files = [
            (to_text(folder.name), file)
            for folder in list_folders(root)
            for file in list_video_files(folder)
        ]
        if not files:
            raise ValueError(f"no video in {root}: expected files like bend/daria_bend.avi")
        classes = tuple(sorted({action for action, _ in files}))
        persons = tuple(sorted({_person(file) for _, file in files}))
        videos = tuple(
            Video(
                f"{action}/{to_text(file.stem)}",
                VideoFile(str(file)),
                {"class": classes.index(action), "person": persons.index(_person(file))},
            )
            for action, file in files
        )
        return VideoList(videos, {"class": classes, "person": persons})

    def train(self) -> VideoDataset:
        """Return the windows; opens every clip for its length, and so may raise `VideoError`."""
        clips = self.pretrain()
        windows = []
        for index in range(len(clips)):
            video = clips[index]
            with video.media.open() as reader:
                starts = frame_sampling.window_starts(reader.num_frames, self.frames)
            windows += [
                Video(
                    f"{video.id}/{start}",
                    Excerpt(video.media, start, start + self.frames),
                    video.labels,
                )
                for start in starts
            ]
        return VideoList(tuple(windows), clips.classes)

    def test(self) -> VideoDataset:
        """Return the same windows."""
        return self.train()


def _class_name(folder: AnyPath) -> str:
    return to_text(underscores_to_spaces(folder.name))


def _describe_left_out(
    split: AnyPath, above: Contents, contents: dict[AnyPath, Contents]
) -> tuple[str, int]:
    """Return what a split has besides its videos, "" for nothing, and the videos among that.

    Args:
      split: the folder.
      above: what is in the folder itself, without videos that are of the split.
      contents: what is in each of its subfolders.
    """
    frames, below = [], []
    for folder, inside in contents.items():
        for name in inside.folders:
            path = f"{folder.name}/{name}"
            if holds_images(folder / name):
                frames.append(path)
            else:
                below += [f"{path}/{video}" for video in list_contents(folder / name).videos]
    others = above.others + [
        f"{folder.name}/{name}" for folder, inside in contents.items() for name in inside.others
    ]
    broken = [path for path in others if os.path.islink(split / path)]
    broken = [path for path in broken if not os.path.exists(split / path)]
    rows = (
        ("videos outside of class folders", above.videos),
        ("videos in folders below the classes", below),
        ("folders of frames, which belong into one .zip file each", frames),
        ("links to files or folders that do not exist", broken),
        ("files of other kinds", [path for path in others if path not in broken]),
        (
            "folders without videos",
            [path.name for path, inside in contents.items() if not inside.videos],
        ),
    )
    texts = [f"{kind} ({len(names)}, such as {names[0]})" for kind, names in rows if names]
    return "; ".join(texts), len(above.videos) + len(below)


def _person(file: AnyPath) -> str:
    return to_text(file.stem).partition("_")[0]
