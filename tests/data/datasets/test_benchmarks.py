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
from vrl_jax.data.datasets.text_lists import read_list
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
    labelled = read_list(ucf_lists / f"trainlist0{split}.txt")
    assert [(path, label - 1) for path, label in labelled] == rows
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_video_with_two_classes_is_warned_of(tmp_path, capsys):
    rows = ("label,youtube_id,time_start,time_end", "zumba,a,0,10", "abseiling,a,0,10")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    touch(tmp_path, "train/a_000000_000010.mp4")
    list_path = str(tmp_path / "train.csv")
    assert len(Kinetics400(str(tmp_path), list_path, list_path).train()) == 2
    warning = f"warning: {tmp_path}: a_000000_000010 is listed with two classes, 1 and 0"
    assert warning in capsys.readouterr().err


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


def write_ucf(folder, train, classes="1 Archery\n2 HandstandPushups\n"):
    """Write lists of UCF101, of which only the training list differs."""
    folder.mkdir(exist_ok=True)
    (folder / "classInd.txt").write_text(classes)
    (folder / "trainlist01.txt").write_text(train)
    (folder / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")


@pytest.mark.parametrize(
    "path",
    [
        "Archery\\v_Archery_g08_c01.avi 1",
        "UCF-101/Archery/v_Archery_g08_c01.avi 1",
        "v_Archery_g08_c01.avi 1",
        "./v_Archery_g08_c01.avi,1",
        "Archery/v_Archery_g08_c01.avi 120 1",
    ],
)
def test_ucf101_lists_come_in_many_forms(tmp_path, path):
    hand = "v_HandStandPushups_g08_c01.avi"  # flat, and spelt as in the lists
    write_ucf(tmp_path / "lists", f"{path}\n{hand} 2\n")
    classes, rows = read_ucf101(tmp_path / "lists", "train", 1)
    assert classes == ("Archery", "HandstandPushups")
    assert rows == [("Archery/v_Archery_g08_c01.avi", 0), (f"HandstandPushups/{hand}", 1)]
    touch(tmp_path, "flat/v_Archery_g08_c01.mp4", "flat/v_HandstandPushups_g08_c01.avi")
    source = UCF101(str(tmp_path / "flat"), str(tmp_path / "lists")).train()
    assert [video.labels["class"] for video in source.videos] == [0, 1]


def test_ucf101_reads_subsets_and_names_what_is_outside(tmp_path):
    write_ucf(tmp_path, "Bowling/v_Bowling_g08_c01.avi 16\n", "1 Archery\n16 Bowling\n")
    assert read_ucf101(tmp_path, "train", 1) == (
        ("Archery", "Bowling"),
        [("Bowling/v_Bowling_g08_c01.avi", 1)],
    )
    for line, name in (("Biking/v_Biking_g08_c01.avi 2", "Biking"), ("v_Biking_g1.avi", "Biking")):
        write_ucf(tmp_path, f"Archery/v_Archery_g08_c01.avi 1\n\n{line}\n")
        with pytest.raises(ValueError, match=f"trainlist01.txt, line 3: .* no class '{name}'"):
            read_ucf101(tmp_path, "train", 1)
    write_ucf(tmp_path, "")
    with pytest.raises(ValueError, match="trainlist01.txt lists no video"):
        read_ucf101(tmp_path, "train", 1)


def test_hmdb51_skips_junk_and_refuses_empty_lists(tmp_path):
    (tmp_path / "run_test_split1.txt").write_text("a.avi 1\nb.avi 2\n")
    (tmp_path / "._run_test_split1.txt").write_bytes(b"\0\5\x16\7Mac OS X\xff\xfe")
    assert read_hmdb51(tmp_path, "train", 1) == (("run",), [("run/a.avi", 0)])
    (tmp_path / "swim_test_split1.txt").write_text("\n")
    with pytest.raises(ValueError, match="swim_test_split1.txt lists no video"):
        read_hmdb51(tmp_path, "train", 1)
    (tmp_path / "swim_test_split1.txt").write_bytes("é.avi 1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="swim_test_split1.txt is not UTF-8 text"):
        read_hmdb51(tmp_path, "train", 1)


def write_diving(root, train, vocabulary=(("Back", "FREE"), ("Forward", "PIKE"))):
    (root / "rgb").mkdir(exist_ok=True)
    (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    (root / "Diving48_V2_train.json").write_text(train, encoding="utf-8-sig")
    return Diving48(str(root), str(root))


def test_diving48_reads_a_byte_order_mark_and_extensions(tmp_path):
    rows = [{"vid_name": "a_1.mp4", "label": "1"}, {"vid_name": "b.c_2", "label": 0}]
    listed = write_diving(tmp_path, json.dumps(rows)).list_part("train")
    assert [(video.id, video.labels["class"]) for video in listed.videos] == [
        ("a_1", 1),
        ("b.c_2", 0),
    ]
    assert [video.media.path for video in listed.videos] == [
        str(tmp_path / "rgb/a_1.mp4"),
        str(tmp_path / "rgb/b.c_2.mp4"),
    ]
    plain = write_diving(tmp_path, json.dumps(rows), ("Back FREE", "Forward PIKE"))
    assert plain.list_part("train").classes == listed.classes


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"vid_name": "a"}, "label must be 0 to 1, got None"),
        ({"vid_name": "a", "label": 2}, "label must be 0 to 1, got 2"),
        ({"vid_name": "a", "label": -1}, "label must be 0 to 1, got -1"),
        ({"vid_name": "a", "label": "Back"}, "label must be 0 to 1, got 'Back'"),
        ({"vid_name": "a", "label": True}, "label must be 0 to 1, got True"),
        ({"label": 1}, "vid_name must be the name of a video, got None"),
        ("a", "must be an object, got 'a'"),
    ],
)
def test_an_entry_of_diving48_is_named_with_its_field(tmp_path, row, says):
    data = write_diving(tmp_path, json.dumps([{"vid_name": "a", "label": 1}, row]))
    with pytest.raises(ValueError, match=f"Diving48_V2_train.json, entry 2: {says}"):
        data.list_part("train")


@pytest.mark.parametrize("text", ["[]", '{"a": 0}'])
def test_annotations_that_are_no_list_are_named(tmp_path, text):
    message = "Diving48_V2_train.json must be a list of at least one video, got"
    with pytest.raises(ValueError, match=message):
        write_diving(tmp_path, text).list_part("train")
    with pytest.raises(ValueError, match=r"Diving48_V2_train.json is not JSON"):
        write_diving(tmp_path, text[:-1]).list_part("train")


def write_something(root, labels, *rows):
    (root / "labels.json").write_text(json.dumps(labels))
    (root / "train.json").write_text(json.dumps(rows))
    return SomethingSomethingV2(str(root), str(root))


@pytest.mark.parametrize(
    "labels",
    [
        {"Push something": "5", "Hold something": "2"},
        {"Push [something]": "5", "Hold something": "2"},
        {"Push something": 2, "Hold something": 1},
        ["Hold something", "Push something"],
    ],
)
def test_something_numbers_the_classes_of_subsets(tmp_path, labels):
    rows = (
        {"id": 7, "template": "Push [something]"},
        {"id": "8", "template": None, "label": "Hold something"},
    )
    source = write_something(tmp_path, labels, *rows).list_part("train")
    assert source.classes == {"class": ("Hold something", "Push something")}
    assert [(video.id, video.labels["class"]) for video in source.videos] == [("7", 1), ("8", 0)]
    assert source[0].media.path == str(tmp_path / "7.webm")


def test_a_bad_entry_of_something_is_named(tmp_path):
    labels = {"Hold something": "0", "Push something": "1"}
    for row, says in (
        ({"id": 7, "label": "pushing a cup"}, "video 7 has an unknown template, 'pushing a cup'"),
        ({"id": 7}, "video 7 has an unknown template, 'None'"),
        ({"template": "Hold [something]"}, "id must be the name of a video, got None"),
    ):
        with pytest.raises(ValueError, match=f"train.json, entry 1: {says}"):
            write_something(tmp_path, labels, row).list_part("train")
    for number in ("0", "x", -1, None):
        with pytest.raises(ValueError, match="labels.json: 'Push something' must have a number of"):
            write_something(tmp_path, {**labels, "Push something": number}).list_part("train")


@pytest.mark.parametrize("between", [",", ", ", ";", "\t"])
def test_kinetics_lists_come_with_any_separator(tmp_path, between):
    head = between.join(("Label", "youtube_id", "time_start", "time_end", "split"))
    row = between.join(('"hurling (sport)"', "-a_b", "9.0", "19", "train"))
    (tmp_path / "list.csv").write_text(f"{head}\n{row}\n")
    assert read_kinetics(tmp_path / "list.csv") == [("-a_b_000009_000019", "hurling (sport)")]


@pytest.mark.parametrize("row", ["nan,a,0,10", ",a,0,10", "zumba,#NAME?,0,10", "zumba,a,0.5,10"])
def test_a_bad_row_of_kinetics_is_named(tmp_path, row):
    (tmp_path / "list.csv").write_text(f"label,youtube_id,time_start,time_end\nx,b,0,10\n{row}\n")
    with pytest.raises(ValueError, match="list.csv, line 3: must have a label and times in whole"):
        read_kinetics(tmp_path / "list.csv")


@pytest.mark.parametrize("vocabulary", [{"0": ["Back"]}, [], 3, [["Back"], 1]])
def test_a_vocabulary_that_is_no_list_of_names_is_refused(tmp_path, vocabulary):
    data = write_diving(tmp_path, '[{"vid_name": "a", "label": 0}]', vocabulary)
    with pytest.raises(ValueError, match="Diving48_vocab.json.* must be"):
        data.train()


@pytest.mark.parametrize("labels", [5, {}, ["a [x]", "a x"], {"a [x]": "0", "a x": "1"}])
def test_labels_of_something_are_distinct_names(tmp_path, labels):
    data = write_something(tmp_path, labels, {"id": "1", "template": "a x"})
    with pytest.raises(ValueError, match="labels.json.*(must be|two classes)"):
        data.train()
