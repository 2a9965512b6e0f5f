import collections
import re

import numpy as np
import pytest

from tests.data.test_decode import write_clip
from vrl_jax.data.sources import Splits
from vrl_jax.data.videos import UCF101, ClassFolders, ListFile, Weizmann, read_list, read_ucf101

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
    wanted = ("play", "playing guitar", "playing zither", "zumba")
    assert train.classes == test.classes == {"class": wanted}
    got = [(train[i].id, train[i].labels["class"]) for i in range(len(train))]
    assert got == [
        ("play/c.avi", 0),
        ("playing guitar/-a.webm", 1),
        ("playing guitar/b [1]!.MKV", 1),
        ("playing_zither/a.mp4", 2),
    ]
    assert train[2].media.path == str(tmp_path / "train/playing guitar/b [1]!.MKV")
    assert [test[i].labels["class"] for i in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", "])
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
        ("a.mp4", "line 2: wanted 'path label', got 'a.mp4'"),
        ("a.mp4 dog", "line 2: wanted 'path label'"),
        ("a.mp4 0.5", "line 2: wanted 'path label'"),
        ("a.mp4 0", "line 2: label 0 is below first_label=1"),
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
    with pytest.raises(ValueError, match=r"1 of 3 listed videos are not in .*NEW_AUDIO_\]"):
        lists.train()


@pytest.fixture
def ucf_lists(videos):
    return videos / "annotations" / "ucf101" / "ucfTrainTestlist"


@pytest.mark.parametrize(
    ("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_ucf101_lists_have_the_official_counts(ucf_lists, split, train, test):
    classes, rows = read_ucf101(ucf_lists, "train", split)
    others, tested = read_ucf101(ucf_lists, "test", split)
    assert classes == others and len(classes) == 101 and classes[36] == "HandstandPushups"
    assert (len(rows), len(tested)) == (train, test)
    assert not {path for path, _ in rows} & {path for path, _ in tested}
    # The list's own labels, from 1, agree with the folders'.
    assert read_list(ucf_lists / f"trainlist0{split}.txt", 1) == rows
    assert {label for _, label in tested} == set(range(101))


@pytest.mark.parametrize("spelling", ["v_HandStandPushups", "v_HandstandPushups"])
def test_ucf101_finds_both_spellings(tmp_path, spelling):
    lists, root = tmp_path / "lists", tmp_path / "UCF-101"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\r\n2 HandstandPushups\r\n")
    (lists / "trainlist02.txt").write_text(
        "Archery/v_Archery_g01_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n"
    )
    (lists / "testlist02.txt").write_text("Archery/v_Archery_g02_c01.avi\r\n")
    name = f"HandstandPushups/{spelling}_g08_c01.avi"
    touch(root, "Archery/v_Archery_g01_c01.avi", name)
    data = UCF101(str(root), str(lists), split=2)
    source = data.train()
    assert [source[i].labels["class"] for i in range(2)] == [0, 1]
    assert source[1].id == "HandstandPushups/v_HandStandPushups_g08_c01.avi"
    assert source[1].media.path == str(root / name)
    with pytest.raises(ValueError, match="1 of 1 listed videos are not in .*v_Archery_g02_c01"):
        data.test()


def test_weizmann_is_ninety_clips_and_their_windows(videos):
    data = Weizmann(str(videos / "weizmann"))
    whole, cut = data.pretrain(), data.test()
    assert (len(whole), len(cut)) == (90, 324)
    assert len(whole.classes["class"]) == 10 and len(whole.classes["person"]) == 9
    assert cut.classes == whole.classes and whole.mirror_safe
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


@pytest.mark.parametrize("kind", [ClassFolders, ListFile, UCF101, Weizmann])
def test_a_missing_root_says_what_to_pass(tmp_path, kind):
    assert isinstance(kind(), Splits)
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
    with pytest.raises(ValueError, match="--config.data.annotations="):
        UCF101(root).train()
    with pytest.raises(ValueError, match="no video in"):
        Weizmann(root).pretrain()
    with pytest.raises(ValueError, match="split must be one of 1, 2, 3, got 4"):
        UCF101(root, split=4)
