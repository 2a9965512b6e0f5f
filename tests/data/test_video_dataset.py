"""Parts of a data set share no video, unless groups are left out."""

import shutil
import weakref
from dataclasses import dataclass

import pytest

from tests.data.datasets.test_record_shards import write_tar
from tests.data.datasets.test_video_folders import touch
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.tar_shards import WebDataset
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile
from vrl_jax.data.video_dataset import Video, VideoList, check_disjoint


def fill(root, *names):
    touch(root, *names)
    for number, name in enumerate(names):
        (root / name).write_bytes(bytes(number))


def test_parts_of_their_own_are_accepted(tmp_path):
    names = "a/0.mp4", "b/1.mp4"  # equal ids, other files
    fill(tmp_path / "train", *names)
    fill(tmp_path / "val", "x", *names)
    folders = ClassFolders(str(tmp_path))
    for data in (folders, Synthetic(train_videos=4, test_videos=4)):
        check_disjoint(data.train(), data.test())
    for number, part in enumerate(("train", "val")):
        write_tar(tmp_path / f"{part}.tar", **{"a.mp4": bytes(999 * number), "a.cls": 0})
    tars = WebDataset(str(tmp_path / "train.tar"), str(tmp_path / "val.tar"))
    check_disjoint(tars.train(), tars.test())


def test_one_folder_for_both_parts_is_refused(tmp_path):
    fill(tmp_path / "train", "a/0.mp4", "b/1.mp4")
    data = ClassFolders(str(tmp_path), test_folder="train")
    says = r"2 of 2 test videos are training videos as well, such as a/0.mp4: .* the groups of a"
    with pytest.raises(ValueError, match=says):
        check_disjoint(data.train(), data.test())


def test_a_copied_folder_is_refused(tmp_path):
    fill(tmp_path / "train", "a/0.mp4", "b/1.mp4")
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    data = ClassFolders(str(tmp_path))
    with pytest.raises(ValueError, match="2 of 2 test videos are training videos"):
        check_disjoint(data.train(), data.test())


def test_a_video_of_both_lists_is_refused(tmp_path):
    fill(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 1\n")
    (tmp_path / "test.txt").write_text(f"c.mp4 0\n{tmp_path}/b 0\n")
    lists = ListFile(*(str(tmp_path / name) for name in ("", "train.txt", "test.txt")))
    with pytest.raises(ValueError, match="1 of 2 test videos are training videos as well"):
        check_disjoint(lists.train(), lists.test())


@pytest.mark.parametrize("name", ["./a.mp4", "../videos/a.mp4", "more//a.mp4", "b.mp4"])
def test_a_video_under_another_name_is_the_same(tmp_path, name):
    root = tmp_path / "videos"
    fill(root, "a.mp4", "c.mp4")
    (root / "more").symlink_to(root)
    (root / "b.mp4").symlink_to("a.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "test.txt").write_text(f"c.mp4 0\n{name} 0\n")
    lists = ListFile(str(root), *(str(tmp_path / f"{part}.txt") for part in ("train", "test")))
    with pytest.raises(ValueError, match="1 of 2 test videos are training videos as well"):
        check_disjoint(lists.train(), lists.test())


def test_files_of_equal_sizes_are_no_copies(tmp_path):
    for part in ("train", "val"):  # uncompressed video of one length
        touch(tmp_path, f"{part}/a/0.y4m", f"{part}/a/1.y4m")
        for number in range(2):
            (tmp_path / part / f"a/{number}.y4m").write_text(f"{part:9}{number}")
    data = ClassFolders(str(tmp_path))
    check_disjoint(data.train(), data.test())


@dataclass
class Loose:
    """A handle without a hash, as dataclasses are that may change."""

    def open(self):
        raise NotImplementedError


def test_handles_that_cannot_be_hashed_are_compared_as_objects():
    def listed(*handles):
        videos = (Video(str(i), handle, {"class": i}) for i, handle in enumerate(handles))
        return VideoList(tuple(videos), {"class": ("a", "b")})

    handle = Loose()
    check_disjoint(listed(handle), listed(Loose(), Loose()))
    with pytest.raises(ValueError, match="1 of 2 test videos"):
        check_disjoint(listed(handle), listed(handle, Loose()))


class Lazy:
    """Videos that are made on access; `handles` refers to those of the other part."""

    classes, mirror_safe = {"class": ("a",)}, True

    def __init__(self, handles=()):
        self.others, self.handles = handles, []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        assert all(handle() for handle in self.others)  # else their ids could be given again
        handle = Loose()
        self.handles.append(weakref.ref(handle))
        return Video(str(index), handle, {"class": 0})


def test_handles_made_on_access_are_no_shared_objects():
    train = Lazy()
    check_disjoint(train, Lazy(train.handles))


@dataclass(frozen=True)
class Drawn:
    """A handle that says nothing of its video."""

    def open(self):
        raise NotImplementedError


def test_equal_handles_without_a_path_are_told_apart_by_ids():
    train, test = (
        VideoList((Video(name, Drawn(), {"class": 0}),), {"class": ("a",)})
        for name in ("train-0", "test-0")
    )
    check_disjoint(train, test)
    with pytest.raises(ValueError, match="1 of 1 test videos .* such as test-0"):
        check_disjoint(test, test)
