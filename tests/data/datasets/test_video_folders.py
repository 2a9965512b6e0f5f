import collections
import re

import numpy as np
import pytest

from tests.data.video.test_video_decoder import write_clip
from vrl_jax.data.datasets.file_lists import read_classes, read_list
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile, Weizmann
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video_dataset import Listing, Splits

AWKWARD = [
    "a dog/-name that begins with a dash.mp4",
    "a dog/Brushing_[_NEW_AUDIO_]_UPDATED!!!!_#1;(2)&3.avi",
    "b/plain.mkv",
]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_class_folders_number_the_spaced_names(tmp_path):
    touch(
        tmp_path,
        "train/playing_zither/a.mp4",
        "train/playing guitar/b [1]!.MKV",
        "train/playing guitar/-a.webm",
        "train/playing guitar/notes.txt",
        "train/playing guitar/.hidden.mp4",
        "train/play/c.avi",
        "val/playing guitar/d.mp4",
        "val/zumba/e.mp4",
        "val/playing zither/f.mp4",
    )
    folders = ClassFolders(root=str(tmp_path))
    train, test = folders.train(), folders.test()
    classes = ("play", "playing guitar", "playing zither", "zumba")
    assert train.classes == test.classes == {"class": classes}
    got = [(train[i].id, train[i].labels["class"]) for i in range(len(train))]
    assert got == [
        ("play/c.avi", 0),
        ("playing guitar/-a.webm", 1),
        ("playing guitar/b [1]!.MKV", 1),
        ("playing_zither/a.mp4", 2),
    ]
    assert train[2].media.path == str(tmp_path / "train/playing guitar/b [1]!.MKV")
    assert [test[i].labels["class"] for i in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", "::"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \r\n", "\n\n"])
@pytest.mark.parametrize("first", [0, 1])
def test_lists_are_read_as_people_write_them(tmp_path, separator, end, first):
    labels = [2, 0, 2]
    lines = [f"{a}{separator}{b + first}{end}" for a, b in zip(AWKWARD, labels, strict=True)]
    path = tmp_path / "list.txt"
    path.write_bytes("".join(lines).encode())
    assert read_list(path, first) == list(zip(AWKWARD, labels, strict=True))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.mp4", "line 2: must be 'path label', got 'a.mp4'"),
        ("a.mp4 dog", "line 2: must be 'path label'"),
        ("a.mp4 0.5", "line 2: must be 'path label'"),
        ("a.mp4 0", "line 2: label must be at least 1, got 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "list.txt"
    path.write_text(f"ok.mp4 1\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(says)):
        read_list(path, 1)


def test_a_list_becomes_a_source(tmp_path):
    touch(tmp_path, *AWKWARD)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text(
        "".join(f"{name} {label}\r\n" for name, label in zip(AWKWARD, (3, 1, 1), strict=True))
    )
    test.write_text(f"{tmp_path / AWKWARD[2]},5\n")
    lists = ListFile(str(tmp_path), str(train), str(test), first_label=1, mirror_safe=False)
    source = lists.train()
    assert [source[i].id for i in range(3)] == AWKWARD
    assert [source[i].media.path for i in range(3)] == [str(tmp_path / name) for name in AWKWARD]
    assert [source[i].labels for i in range(3)] == [{"class": 2}, {"class": 0}, {"class": 0}]
    assert source.classes == lists.test().classes == {"class": ("1", "2", "3", "4", "5")}
    assert not source.mirror_safe and lists.test()[0].labels == {"class": 4}
    (tmp_path / AWKWARD[1]).unlink()
    with pytest.raises(ValueError, match=r"1 of 3 listed videos are missing: .*NEW_AUDIO_\]"):
        lists.train()


def test_what_is_listed_need_not_exist(tmp_path):
    touch(tmp_path, "a/one.mp4", "a/three.mkv", "b/two/frame.jpg")
    listed = tmp_path / "list.txt"
    listed.write_text("a/one 300 1\nb/two 250 0\na/three.mp4 10 1\nc/four.avi 7 0\n")
    data = ListFile(str(tmp_path), str(listed), str(listed), columns="path frames label")
    for part in ("pretrain", "train", "test"):
        videos = data.list_part(part)
        assert [video.media.path for video in videos.videos] == [
            str(tmp_path / name) for name in ("a/one.mp4", "b/two", "a/three.mkv", "c/four.avi")
        ]
        assert [video.id for video in videos.videos] == [
            "a/one",
            "b/two",
            "a/three.mp4",
            "c/four.avi",
        ]
    with pytest.raises(ValueError, match="part must be one of 'pretrain', 'train', 'test'"):
        data.list_part("val")
    for get in (data.pretrain, data.train, data.test):
        with pytest.raises(ValueError, match="2 of 4 listed videos are missing: .*b/two, .*four"):
            get()
    touch(tmp_path, "b/two.webm", "c/four.avi")
    assert data.test() == data.list_part("test") and len(data.test()) == 4


def test_classes_come_from_a_file(tmp_path):
    plain, numbered = tmp_path / "names.txt", tmp_path / "classInd.txt"
    plain.write_text("play guitar\nrun\n")
    numbered.write_text("2 run\r\n1 play_guitar\r\n")
    assert read_classes(plain) == (("play guitar", "run"), 0)
    assert read_classes(numbered) == (("play_guitar", "run"), 1)
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "from1.txt").write_text("a 1\nb 2\n")
    (tmp_path / "from0.txt").write_text("a 0\nb 1\n")

    def labels(rows, **fields):
        path = str(tmp_path / rows)
        source = ListFile(str(tmp_path), path, path, **fields).train()
        return [source[i].labels["class"] for i in range(2)], source.classes["class"]

    ind, names = str(numbered), ("play_guitar", "run")
    assert labels("from1.txt", classes=ind) == ([0, 1], names)
    assert labels("from0.txt", classes=ind, first_label=0) == ([0, 1], names)
    assert labels("from0.txt", classes=str(plain)) == ([0, 1], ("play guitar", "run"))
    with pytest.raises(ValueError, match="line 1: label must be at least 1, got 0"):
        labels("from0.txt", classes=ind)
    with pytest.raises(ValueError, match="names.txt has 2 classes, but not 2"):
        labels("from1.txt", classes=str(plain))
    numbered.write_text("1 run\n3 walk\n")
    with pytest.raises(ValueError, match="classInd.txt: classes must be numbered without gaps"):
        read_classes(numbered)


def test_a_class_may_be_the_folder(tmp_path):
    touch(tmp_path, "x/run/a.avi", "x/play_guitar/b.avi")
    path = tmp_path / "train.csv"
    path.write_text(f"{tmp_path}/x/run/a.avi,53\n{tmp_path}/x/play_guitar/b.avi,120\n")
    data = ListFile("/", str(path), columns="path frames")
    source = data.train()
    assert source.classes == {"class": ("play guitar", "run")}
    assert [source[i].labels["class"] for i in range(2)] == [1, 0]
    (tmp_path / "classInd.txt").write_text("1 run\n2 play_guitar\n")
    data = ListFile("/", str(path), columns="path frames", classes=str(tmp_path / "classInd.txt"))
    source = data.train()
    assert source.classes == {"class": ("run", "play_guitar")}
    assert [source[i].labels["class"] for i in range(2)] == [0, 1]
    (tmp_path / "classInd.txt").write_text("1 run\n")
    with pytest.raises(ValueError, match="has 1 classes, but not 'play guitar'"):
        data.train()
    with pytest.raises(ValueError, match="columns must be one of 'path label'"):
        ListFile(columns="label path")


def test_a_real_tsn_list_is_read(videos):
    folder = videos / "annotations" / "kinetics400"
    rows = read_list(folder / "val_videofolder.txt", columns="path frames label")
    assert len(rows) == 19328 and {label for _, label in rows} == set(range(400))
    assert rows[5000] == ("driving_car/QkrGbf1ejIA_000105_000115", 103)
    names, first = read_classes(folder / "classInd.txt")
    assert (len(names), first, names[103]) == (400, 1, "driving_car")
    # Brackets were left out before these names were sorted, but not before those of the list.
    swapped = {label for path, label in rows if path.split("/")[0] != names[label]}
    assert swapped == {308, 309} and names[308] == "skiing_crosscountry"


def test_a_zip_may_hold_the_frames(tmp_path):
    touch(tmp_path, "abc.zip")
    (tmp_path / "list.txt").write_text("abc 1\n")
    path = str(tmp_path / "list.txt")
    source = ListFile(str(tmp_path), path, first_label=1).train()
    assert source[0].media == ZippedFrames(str(tmp_path / "abc.zip"))


def test_weizmann_is_ninety_clips_and_their_windows(videos):
    data = Weizmann(str(videos / "weizmann"))
    whole, cut = data.pretrain(), data.test()
    assert (len(whole), len(cut)) == (90, 324)
    assert len(whole.classes["class"]) == 10 and len(whole.classes["person"]) == 9
    assert cut.classes == whole.classes and whole.mirror_safe
    assert data.list_part("train") == data.list_part("test") == whole
    pairs = collections.Counter(tuple(whole[i].labels.values()) for i in range(90))
    assert len(pairs) == 90
    video = next(whole[i] for i in range(90) if whole[i].id == "jack/moshe_jack")
    assert whole.classes["class"][video.labels["class"]] == "jack"
    assert whole.classes["person"][video.labels["person"]] == "moshe"
    assert len({cut[i].id for i in range(324)}) == 324


def test_weizmann_windows_follow_each_other(tmp_path):
    for name, frames in (
        ("run/ann_run.avi", 20),
        ("run/bob_run1.avi", 7),
        ("wave1/bob_wave1.avi", 9),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_clip(tmp_path / name, frames=frames, codec="mpeg4")
    data = Weizmann(str(tmp_path), frames=8)
    whole, cut = data.pretrain(), data.test()
    assert whole.classes == {"class": ("run", "wave1"), "person": ("ann", "bob")}
    assert [whole[i].labels for i in range(3)] == [
        {"class": 0, "person": 0},
        {"class": 0, "person": 1},
        {"class": 1, "person": 1},
    ]
    assert [(cut[i].media.start, cut[i].media.stop) for i in range(3)] == [(0, 8), (8, 16), (0, 8)]
    assert [cut[i].labels for i in range(len(cut))] == [
        {"class": 0, "person": 0},
        {"class": 0, "person": 0},
        {"class": 1, "person": 1},
    ]
    with cut[1].media.open() as part, whole[0].media.open() as video:
        np.testing.assert_array_equal(
            part.read(np.arange(8)[None], (16, 32)), video.read(np.arange(8, 16)[None], (16, 32))
        )


@pytest.mark.parametrize("kind", [ClassFolders, ListFile, Weizmann])
def test_a_missing_root_says_what_to_pass(tmp_path, kind):
    assert isinstance(kind(), Splits) and isinstance(kind(), Listing)
    for root in ("", str(tmp_path / "absent")):
        for part in (kind(root=root).train, kind(root=root).test):
            with pytest.raises(ValueError, match="root must be a folder.*--config.data.root=/path"):
                part()


def test_what_else_is_missing_is_named(tmp_path):
    root = str(tmp_path)
    with pytest.raises(ValueError, match="--config.data.train_folder="):
        ClassFolders(root).train()
    touch(tmp_path, "val/class/notes.txt", "train/readme.md")
    with pytest.raises(ValueError, match="no video in .*val"):
        ClassFolders(root).test()
    with pytest.raises(ValueError, match="--config.data.test_list="):
        ListFile(root).test()
    with pytest.raises(ValueError, match="no video in"):
        Weizmann(root).pretrain()
