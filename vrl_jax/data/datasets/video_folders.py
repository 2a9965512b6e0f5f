"""Video files on disk: class folders, `path label` lists, Weizmann.

Nothing here imports JAX.
"""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.datasets.file_lists import (
    COLUMNS,
    PARTS,
    Listed,
    list_folders,
    list_video_files,
    locate_videos,
    open_handle,
    read_classes,
    read_list,
    require_file,
    require_folder,
    underscores_to_spaces,
)
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.video_decoder import Excerpt, VideoFile
from vrl_jax.data.video_dataset import Video, VideoDataset, VideoList


@dataclass(frozen=True)
class ClassFolders(Listed):
    """Videos in one folder per class, the layout of Kinetics-400.

    Classes are numbered alphabetically. Underscores in class names count as spaces. A class may be
    missing in one of the two splits.

    Attributes:
      root: folder with the two splits.
      train_folder: folder of the training videos in `root`, `<train_folder>/<class>/<video>`.
      test_folder: folder of the test videos in `root`.
    """

    root: str = ""
    train_folder: str = "train"
    test_folder: str = "val"

    def list_videos(self, part: str) -> VideoList:
        """Return the video files in the part's folder."""
        root = require_folder("root", self.root)
        key = f"{part}_folder"
        split = require_folder(key, str(root / getattr(self, key)))
        both = (root / self.train_folder, root / self.test_folder)
        classes = sorted(
            {underscores_to_spaces(path.name) for at in both for path in list_folders(at)}
        )
        numbers = {name: number for number, name in enumerate(classes)}
        videos = tuple(
            Video(
                f"{folder.name}/{file.name}",
                open_handle(str(file)),
                {"class": numbers[underscores_to_spaces(folder.name)]},
            )
            for folder in list_folders(split)
            for file in list_video_files(folder)
        )
        if not videos:
            raise ValueError(
                f"no video in {split}: expected files like {split}/<class>/<video>.mp4"
            )
        return VideoList(videos, {"class": tuple(classes)})


@dataclass(frozen=True)
class ListFile(Listed):
    """Videos listed in text files, one per line, the format of most repositories.

    Numbers come last, after spaces, tabs, a comma or `::`, so paths may contain spaces. Line ends
    of any system, trailing blanks and empty lines are accepted. Paths may lack the extension, and
    files may have another one. Without `classes`, the class names are the numbers.

    Attributes:
      root: folder that paths are relative to (`/` for absolute paths).
      train_list: file that lists the training videos.
      test_list: file that lists the test videos.
      first_label: number of the first class in the lists; -1: as in `classes`, or 0.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
      columns: "path label", "path frames label", or "path frames" where a video's folder is its
        class; the number of frames is not used.
      classes: file of lines `name` or `number name` with the names of the classes, in order.
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
        names, first = (), 0
        if self.classes:
            names, first = read_classes(require_file("classes", self.classes))
        if self.first_label >= 0:
            first = self.first_label

        def read(key: str, path: str) -> list[tuple[str, int | str]]:
            return read_list(require_file(key, path), first, self.columns)

        rows = self._both(part, "list", read)
        labels = {label for part_rows in rows.values() for _, label in part_rows}
        if self.columns == "path frames":
            names = names or tuple(sorted(labels))
            numbers = {underscores_to_spaces(name): number for number, name in enumerate(names)}
        else:
            names = names or tuple(str(number + first) for number in range(1 + max(labels)))
            numbers = {number: number for number in range(len(names))}
        if unknown := sorted(labels - set(numbers)):
            raise ValueError(f"{self.classes} has {len(names)} classes, but not {unknown[0]!r}")
        candidates = ((path, numbers[label], (path,)) for path, label in rows[part])
        return locate_videos(root, candidates, names, self.mirror_safe)


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
            (folder.name, file)
            for folder in list_folders(root)
            for file in list_video_files(folder)
        ]
        if not files:
            raise ValueError(f"no video in {root}: expected files like bend/daria_bend.avi")
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


def _person(file: AnyPath) -> str:
    return file.stem.partition("_")[0]
