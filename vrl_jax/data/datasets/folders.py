"""Video files on disk as data sets: class folders, `path label` lists, Weizmann.

Nothing here imports JAX.
"""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.dataset import Video, VideoDataset, VideoList
from vrl_jax.data.datasets.file_lists import (
    COLUMNS,
    PARTS,
    Listed,
    list_folders,
    list_video_files,
    locate_videos,
    need_file,
    need_folder,
    open_handle,
    read_classes,
    read_list,
    space_name,
)
from vrl_jax.data.storage import AnyPath
from vrl_jax.data.video.decode import Excerpt, VideoFile


@dataclass(frozen=True)
class ClassFolders(Listed):
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

    def list_videos(self, part: str) -> VideoList:
        """Return the video files in the part's folder."""
        root = need_folder("root", self.root)
        key = f"{part}_folder"
        split = need_folder(key, str(root / getattr(self, key)))
        both = (root / self.train_folder, root / self.test_folder)
        classes = sorted({space_name(path.name) for at in both for path in list_folders(at)})
        numbers = {name: number for number, name in enumerate(classes)}
        videos = tuple(
            Video(
                f"{folder.name}/{file.name}",
                open_handle(str(file)),
                {"class": numbers[space_name(folder.name)]},
            )
            for folder in list_folders(split)
            for file in list_video_files(folder)
        )
        if not videos:
            raise ValueError(f"no video in {split}: wanted files like {split}/<class>/<video>.mp4")
        return VideoList(videos, {"class": tuple(classes)})


@dataclass(frozen=True)
class ListFile(Listed):
    """Videos named in text files, a line each, as most repositories have them.

    The numbers come last, after spaces, tabs, a comma or `::`, so paths may hold spaces; line ends
    of any system, trailing blanks and empty lines are fine. A path may lack its extension, or the
    file have another one. Class names are the numbers unless `classes` gives them.

    Attributes:
      root: folder that the paths start from (`/` where they are absolute).
      train_list: file that lists the training videos.
      test_list: file that lists the test videos.
      first_label: the number of the first class in the lists; -1: as in `classes`, or 0.
      mirror_safe: whether a horizontal flip leaves labels true (not where left and right matter).
      columns: "path label", "path frames label", or "path frames" where a video's folder is its
        class; the frames are not used.
      classes: file of lines `name`, or `number name`; it gives classes their names and order.
    """

    root: str = ""
    train_list: str = ""
    test_list: str = ""
    first_label: int = -1
    mirror_safe: bool = True
    columns: str = "path label"
    classes: str = ""

    def __post_init__(self) -> None:
        """Refuse unknown columns."""
        check.one_of(tuple(COLUMNS), columns=self.columns)
        check.at_least(-1, first_label=self.first_label)

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the list."""
        root = need_folder("root", self.root)
        names, first = (), 0
        if self.classes:
            names, first = read_classes(need_file("classes", self.classes))
        if self.first_label >= 0:
            first = self.first_label

        def read(key: str, path: str) -> list[tuple[str, int | str]]:
            return read_list(need_file(key, path), first, self.columns)

        rows = self._both(part, "list", read)
        labels = {label for listed in rows.values() for _, label in listed}
        if self.columns == "path frames":
            names = names or tuple(sorted(labels))
            known = {space_name(name): number for number, name in enumerate(names)}
        else:
            names = names or tuple(str(number + first) for number in range(1 + max(labels)))
            known = {number: number for number in range(len(names))}
        if unknown := sorted(labels - set(known)):
            raise ValueError(f"{self.classes} has {len(names)} classes, but not {unknown[0]!r}")
        places = ((path, known[label], (path,)) for path, label in rows[part])
        return locate_videos(root, places, names, self.mirror_safe)


@dataclass(frozen=True)
class Weizmann(Listed):
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

    def list_part(self, part: str) -> VideoList:
        """Return the whole clips, which every part is made of; `ValueError` without any."""
        check.one_of(PARTS, part=part)
        root = need_folder("root", self.root)
        files = [
            (folder.name, file)
            for folder in list_folders(root)
            for file in list_video_files(folder)
        ]
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

    def train(self) -> VideoDataset:
        """Return the windows; opens every clip for its length, so `VideoError` may be raised."""
        whole = self.pretrain()
        cuts = []
        for index in range(len(whole)):
            video = whole[index]
            with video.media.open() as reader:
                starts = frame_sampling.window_starts(reader.num_frames, self.frames)
            cuts += [
                Video(f"{video.id}/{at}", Excerpt(video.media, at, at + self.frames), video.labels)
                for at in starts
            ]
        return VideoList(tuple(cuts), whole.classes)

    def test(self) -> VideoDataset:
        """Return the same windows."""
        return self.train()


def _person(file: AnyPath) -> str:
    return file.stem.partition("_")[0]
