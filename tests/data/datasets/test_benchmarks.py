import collections
import json

import pytest

from tests.data.datasets.test_video_folders import touch
from vrl_jax.data.datasets.benchmarks import (
    HMDB51,
    UCF101,
    Diving48,
    Kinetics400,
    SomethingSomethingV2,
    read_hmdb51,
    read_kinetics,
    read_ucf101,
)
from vrl_jax.data.datasets.file_lists import read_list
from vrl_jax.data.video_dataset import Listing


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
    with pytest.raises(ValueError, match="1 of 1 listed videos are missing: .*v_Archery_g02_c01"):
        data.test()


@pytest.fixture
def hmdb_lists(videos):
    return videos / "annotations" / "hmdb51" / "testTrainMulti_7030_splits"


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_lists_have_the_official_counts(hmdb_lists, split):
    rows = {}
    for part, count in (("train", 3570), ("test", 1530), ("unused", 1666)):
        classes, rows[part] = read_hmdb51(hmdb_lists, part, split)
        assert len(classes) == 51 and len(rows[part]) == count
        assert all(path.split("/")[0] == classes[label] for path, label in rows[part])
    assert classes[4:8] == ("clap", "climb", "climb_stairs", "dive")
    counts = collections.Counter(label for _, label in rows["train"])
    assert set(counts.values()) == {70}
    assert len({path for part in rows.values() for path, _ in part}) == 6766
    assert not any(path != path.strip() for path, _ in rows["train"])


def test_hmdb51_finds_odd_names(tmp_path):
    odd = "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_le_goo_1.avi"
    lists, root = tmp_path / "lists", tmp_path / "hmdb51"
    lists.mkdir()
    (lists / "climb_test_split1.txt").write_text("#1 (HQ)_climb.avi 1 \nb.avi 0 \nc.avi 2 \n")
    (lists / "climb_stairs_test_split1.txt").write_text("a&b;c.avi 1 \n")
    (lists / "brush_hair_test_split1.txt").write_text(f"{odd} 1 \n")
    touch(root, f"brush_hair/{odd}", "climb/#1 (HQ)_climb.mp4", "climb_stairs/a&b;c.avi")
    data = HMDB51(str(root), str(lists))
    source = data.train()
    assert source.classes == {"class": ("brush_hair", "climb", "climb_stairs")}
    assert [(video.media.path, video.labels["class"]) for video in source.videos] == [
        (str(root / "brush_hair" / odd), 0),
        (str(root / "climb/#1 (HQ)_climb.mp4"), 1),  # transcoded
        (str(root / "climb_stairs/a&b;c.avi"), 2),
    ]
    assert [video.media.path for video in data.list_part("test").videos] == [
        str(root / "climb/c.avi")
    ]
    with pytest.raises(ValueError, match="no file <class>_test_split2.txt"):
        HMDB51(str(root), str(lists), split=2).train()
    (lists / "climb_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(
        ValueError, match="climb_test_split1.txt, line 1: must be like 'name.avi 1'"
    ):
        data.train()


def test_diving48_has_the_official_counts(videos, tmp_path):
    (tmp_path / "rgb").mkdir()
    data = Diving48(str(tmp_path), str(videos / "annotations" / "diving48"))
    train, test = data.list_part("train"), data.list_part("test")
    assert (len(train), len(test)) == (15027, 1970)
    assert len(train.classes["class"]) == 48
    assert train.classes["class"][0] == "Back 15som 05Twis FREE"
    for part in (train, test):
        assert len({video.labels["class"] for video in part.videos}) == 47
    assert train[0].id == "-mmq0PT-u8k_00155" and train[0].labels == {"class": 0}
    assert train[0].media.path == str(tmp_path / "rgb" / "-mmq0PT-u8k_00155.mp4")
    touch(tmp_path, f"rgb/{test[0].id}.webm")
    assert data.list_part("test")[0].media.path == str(tmp_path / "rgb" / f"{test[0].id}.webm")
    with pytest.raises(ValueError, match="1969 of 1970 listed videos are missing"):
        data.test()
    with pytest.raises(ValueError, match="--config.data.folder="):
        Diving48(str(tmp_path), data.annotations, folder="flow").train()


def test_something_has_the_official_counts(videos, tmp_path):
    data = SomethingSomethingV2(str(tmp_path), str(videos / "annotations" / "ssv2"))
    test = data.list_part("test")
    assert len(test) == 24777 and len(test.classes["class"]) == 174 and not test.mirror_safe
    assert test.classes["class"][0] == "Approaching something with your camera"
    assert test.classes["class"][173] == "Wiping something off of something"
    assert {video.labels["class"] for video in test.videos} == set(range(174))
    name = test.classes["class"][test[0].labels["class"]]
    assert (test[0].id, name) == ("74225", "Spinning something that quickly stops spinning")
    assert test[0].media.path == str(tmp_path / "74225.webm")
    with pytest.raises(ValueError, match="there is no file .*something-something-v2-train.json"):
        data.train()


@pytest.mark.parametrize("stem", ["something-something-v2-", ""])
def test_something_finds_either_release(tmp_path, stem):
    lists, root = tmp_path / "labels", tmp_path / "videos"
    lists.mkdir()
    row = {"id": "7", "template": "Moving [part] of [something]", "placeholders": ["lid", "pot"]}
    (lists / f"{stem}labels.json").write_text(
        json.dumps({"Moving part of something": "0", "Holding something": "1"})
    )
    (lists / f"{stem}train.json").write_text(json.dumps([row, {**row, "id": "8"}]))
    touch(root, "7.webm", "8.mp4")
    data = SomethingSomethingV2(str(root), str(lists))
    source = data.train()
    assert source.classes == {"class": ("Moving part of something", "Holding something")}
    assert not source.mirror_safe
    assert [(video.media.path, video.labels) for video in source.videos] == [
        (str(root / "7.webm"), {"class": 0}),
        (str(root / "8.mp4"), {"class": 0}),
    ]
    (lists / f"{stem}train.json").write_text(json.dumps([{**row, "template": "Eating [x]"}]))
    with pytest.raises(ValueError, match="video 7 has an unknown template, 'Eating x'"):
        data.train()


def test_kinetics_has_the_official_counts(videos, tmp_path):
    path = videos / "annotations" / "kinetics400" / "kinetics_val.csv"
    rows = read_kinetics(path)
    assert len({name for name, _ in rows}) == 19906
    assert rows[0] == ("0wR5jVB-WPk_000417_000427", "abseiling")
    names = sorted({label for _, label in rows})
    assert len(names) == 400 and "using remote controller (not gaming)" in names
    listed = Kinetics400(str(tmp_path), test_list=str(path)).list_part("test")
    assert listed.classes == {"class": tuple(names)} and len(listed) == 19906
    assert {video.labels["class"] for video in listed.videos} == set(range(400))
    assert listed[1].media.path == str(tmp_path / "val" / "3caPS4FHFF8_000036_000046.mp4")


def test_kinetics_videos_lie_flat_or_in_class_folders(tmp_path):
    head = "label,youtube_id,time_start,time_end,split"
    train, test = tmp_path / "train.csv", tmp_path / "val.csv"
    rows = (
        ("zumba", "-a"),
        ("play ball", "_b"),
        ("play ball", "c"),
        ('"hurling (sport)"', "d"),
        ("person's head", "e"),
        ("person's head", "f"),
    )
    train.write_text(head + "".join(f"\n{name},{key},9,19,train" for name, key in rows))
    test.write_text(f"{head},is_cc\r\nabseiling,g,100,110,val,0\r\n")
    names = (
        "train/-a_000009_000019.mp4",
        "train/play ball/_b_000009_000019.mp4",
        "train/play_ball/c_000009_000019.mkv",
        "train/hurling_(sport)/d_000009_000019.mp4",
        "train/persons_head/e_000009_000019.mp4",
        "train/person's_head/f_000009_000019.mp4",
    )
    touch(tmp_path, *names, "val/abseiling/g_000100_000110.webm")
    data = Kinetics400(str(tmp_path), str(train), str(test))
    source = data.train()
    assert [video.media.path for video in source.videos] == [str(tmp_path / at) for at in names]
    assert [video.labels["class"] for video in source.videos] == [4, 3, 3, 1, 2, 2]
    assert source.classes == data.test().classes
    assert data.test()[0].labels == {"class": 0} and data.test()[0].id == "g_000100_000110"
    (tmp_path / names[0]).unlink()
    with pytest.raises(ValueError, match="1 of 6 listed videos are missing: .*train/-a_000009"):
        data.pretrain()
    assert data.list_part("pretrain")[0].media.path == str(tmp_path / names[0])


def test_a_kinetics_list_that_is_none_is_named(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("a.mp4 0\n")
    with pytest.raises(ValueError, match="train.csv has no column label, youtube_id, time_start"):
        read_kinetics(path)
    path.write_text("label,youtube_id,time_start,time_end\nzumba,a,0,10\nzumba,b,0\n")
    with pytest.raises(ValueError, match="train.csv, line 3: must have a label and times"):
        read_kinetics(path)


@pytest.mark.parametrize("kind", [UCF101, HMDB51, Diving48, SomethingSomethingV2, Kinetics400])
def test_what_is_missing_is_named(tmp_path, kind):
    assert isinstance(kind(), Listing)
    with pytest.raises(ValueError, match="root must be a folder.*--config.data.root=/path"):
        kind(root=str(tmp_path / "absent")).train()
    (tmp_path / "rgb").mkdir()
    key = "train_list" if kind is Kinetics400 else "annotations"
    with pytest.raises(ValueError, match=f"--config.data.{key}="):
        kind(root=str(tmp_path)).pretrain()
    if kind in (UCF101, HMDB51):
        with pytest.raises(ValueError, match="split must be one of 1, 2, 3, got 4"):
            kind(str(tmp_path), split=4)
