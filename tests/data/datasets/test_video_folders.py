import collections
import dataclasses
import os
import re

import numpy as np
import pytest

from tests.data.video.test_video_decoder import write_clip
from vrl_jax.data.datasets.benchmarks import read_kinetics
from vrl_jax.data.datasets.class_names import read_classes, warn_about_untrained
from vrl_jax.data.datasets.text_lists import read_list
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile, Weizmann
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video_dataset import Listing, MissingPart, Splits, fingerprint

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


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", ";", "::"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \r\n", "\n\n"])
@pytest.mark.parametrize("first", [0, 1])
def test_lists_are_read_as_people_write_them(tmp_path, separator, end, first):
    labels = [2, 0, 2]
    lines = [f"{a}{separator}{b + first}{end}" for a, b in zip(AWKWARD, labels, strict=True)]
    path = tmp_path / "list.txt"
    path.write_bytes("".join(lines).encode())
    rows = [(a, b + first) for a, b in zip(AWKWARD, labels, strict=True)]
    assert read_list(path) == rows


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a b", "line 2: must be 'path label', got 'a b': .*columns=path"),
        ("a.mp4", "line 2 has no label, but others have"),
        ("a.mp4 -1", "line 2 has no label, but others have"),
        ("a.mp4 dog", "line 1: label must be a name, as 'dog' is, got the number 1"),
        ("a.mp4 0.5", "line 2: must be 'path label'"),
        ("a.mp4 0", "line 2: label must be 1 to 1, got 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "list.txt"
    path.write_text(f"ok.mp4 1\n{line}\n")
    with pytest.raises(ValueError, match=f"list.txt, {says}"):
        ListFile(str(tmp_path), str(path), first_label=1).train()


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (
            "a dog/x.mp4,walk\nb.MKV, play_guitar",
            [("a dog/x.mp4", "walk"), ("b.MKV", "play_guitar")],
        ),
        ("34870;Drumming Fingers", [("34870", "Drumming Fingers")]),
        ('a, b/x.mp4,"run, fast"', [("a, b/x.mp4", "run, fast")]),
        ("a dog/x.avi play guitar", [("a dog/x.avi", "play guitar")]),
        ("a/x::walk\tfast", [("a/x::walk", "fast")]),
        ("a dog/x, y.mp4\nb.zip", [("a dog/x, y.mp4", None), ("b.zip", None)]),
        ('"a dog/x.mp4",\nb.mp4 -1', [("a dog/x.mp4", None), ("b.mp4", -1)]),
    ],
)
def test_labels_may_be_names_or_absent(tmp_path, lines, rows):
    (tmp_path / "list.txt").write_text(lines)
    assert read_list(tmp_path / "list.txt") == rows


def test_names_in_lists_are_classes(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "train.csv").write_text("a.mp4,walk\nb.mp4,play_guitar\n")
    (tmp_path / "test.csv").write_text("c.mp4,run\n")
    data = ListFile(str(tmp_path), str(tmp_path / "train.csv"), str(tmp_path / "test.csv"))
    assert data.train().classes == data.test().classes
    assert data.train().classes == {"class": ("play guitar", "run", "walk")}
    assert labels_of(data.train()) == {"a.mp4": "walk", "b.mp4": "play guitar"}
    (tmp_path / "names.txt").write_text("walk\nplay guitar\nrun\n")
    named = dataclasses.replace(data, classes=str(tmp_path / "names.txt"))
    assert [video.labels["class"] for video in named.train().videos] == [0, 1]
    (tmp_path / "test.csv").write_text("\nc.mp4,swim\n")
    with pytest.raises(ValueError, match="test.csv, line 2: .*names.txt has no class 'swim'"):
        named.train()


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        ("a dog/x.mp4\nb/y.avi\n", "path label"),
        ("a dog/x.mp4 -1\nb/y.avi,-1\n", "path label"),
        ("a dog/x.mp4 0 -1\nb/y.avi 0 -1\n", "path frames label"),  # as VideoMAE V2 lists them
        ("a dog/x\nb/y\n", "path"),
    ],
)
def test_lists_without_labels_serve_for_pretraining(tmp_path, lines, columns):
    touch(tmp_path, "a dog/x.mp4", "b/y.avi", "z.mp4")
    (tmp_path / "train.txt").write_text(lines)
    data = ListFile(str(tmp_path), str(tmp_path / "train.txt"), columns=columns)
    source = data.pretrain()
    assert source.classes == {} and [video.labels for video in source.videos] == [{}, {}]
    assert source[0].media.path == str(tmp_path / "a dog/x.mp4")
    with pytest.raises(MissingPart, match="--config.data.test_list="):
        data.test()
    (tmp_path / "test.txt").write_text("z.mp4 1 1\n" if "frames" in columns else "z.mp4 1\n")
    if columns != "path":
        data = dataclasses.replace(data, test_list=str(tmp_path / "test.txt"))
        assert data.train().classes == {} and labels_of(data.test()) == {"z.mp4": "1"}


def test_a_missing_list_is_an_error_where_it_was_set(tmp_path):
    for test_list in ("", "absent.txt"):
        with pytest.raises(ValueError) as error:
            ListFile(str(tmp_path), test_list=test_list).test()
        assert isinstance(error.value, MissingPart) == (not test_list)


def test_folders_need_no_classes_and_no_test_part(tmp_path, capsys):
    touch(tmp_path, "flat/train/a.mp4", "flat/train/b.avi", "flat/train/notes.txt")
    flat = ClassFolders(str(tmp_path / "flat"))
    assert flat.pretrain().classes == {} and [v.id for v in flat.train().videos] == [
        "a.mp4",
        "b.avi",
    ]
    assert "left out files of other kinds (1, such as notes.txt)" in capsys.readouterr().err
    with pytest.raises(
        MissingPart, match="must have a folder 'val', got train: pass --config.data"
    ):
        flat.test()
    with pytest.raises(ValueError, match="must have a folder 'dev'") as error:
        dataclasses.replace(flat, test_folder="dev").test()
    assert not isinstance(error.value, MissingPart)
    touch(tmp_path, "flat/val/walk/c.mp4")
    assert labels_of(flat.test()) == {"walk/c.mp4": "walk"} and flat.train().classes == {}
    touch(
        tmp_path, "whole/x.mp4", "classes/run/x.mp4", "classes/walk/y.mp4", "deep/some/train/z.mp4"
    )
    assert [v.id for v in ClassFolders(str(tmp_path / "whole")).pretrain().videos] == ["x.mp4"]
    classes = ClassFolders(str(tmp_path / "classes"))
    assert labels_of(classes.pretrain()) == {"run/x.mp4": "run", "walk/y.mp4": "walk"}
    with pytest.raises(MissingPart):
        classes.test()
    with pytest.raises(ValueError, match="must have a folder 'train', got some"):
        ClassFolders(str(tmp_path / "deep")).pretrain()
    touch(tmp_path, "whole/val/v/x.mp4")  # then the rest is no training part
    with pytest.raises(ValueError, match="must have a folder 'train', got val"):
        ClassFolders(str(tmp_path / "whole")).pretrain()


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
    with pytest.raises(ValueError, match="line 1: label must be 1 to 2, got 0"):
        labels("from0.txt", classes=ind)
    with pytest.raises(ValueError, match="line 2: label must be 0 to 1, got 2"):
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
    with pytest.raises(ValueError, match="has no class 'play guitar'"):
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
    with pytest.raises(
        ValueError, match="must have a folder 'train', got none: pass --config.data.train_folder="
    ):
        ClassFolders(root).train()
    touch(tmp_path, "val/class/notes.txt", "train/readme.md")
    with pytest.raises(ValueError, match="no video in .*val"):
        ClassFolders(root).test()
    with pytest.raises(ValueError, match="--config.data.test_list="):
        ListFile(root).test()
    with pytest.raises(ValueError, match="no video in"):
        Weizmann(root).pretrain()


def labels_of(source):
    names = source.classes["class"]
    return {video.id: names[video.labels["class"]] for video in source.videos}


@pytest.mark.parametrize("end", ["MTS", "m2ts", "gif", "vob", "asf", "mxf", "y4m", "F4V", "3g2"])
def test_every_format_of_videos_is_listed(tmp_path, end):
    touch(tmp_path, f"train/a/x.{end}", "train/b/y.mp4")
    assert labels_of(ClassFolders(str(tmp_path)).train()) == {f"a/x.{end}": "a", "b/y.mp4": "b"}


def test_a_transport_stream_of_a_camcorder_is_read(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    write_clip(tmp_path / "x.ts", frames=5, codec="mpeg2video")
    (tmp_path / "x.ts").rename(tmp_path / "train/a/00001.MTS")
    with ClassFolders(str(tmp_path)).train()[0].media.open() as reader:
        assert reader.num_frames == 5


def test_a_folder_without_videos_is_no_class(tmp_path, capsys):
    touch(tmp_path, "train/b/x.mp4", "train/__MACOSX/._x.mp4", "train/__MACOSX/y.mp4")
    touch(tmp_path, "train/.cache/z.mp4", "train/d/._w.mp4", "val/c/v.mp4", "val/b/.keep")
    (tmp_path / "train/a").mkdir()
    data = ClassFolders(str(tmp_path))
    train, test = data.train(), data.test()
    assert train.classes == test.classes == {"class": ("b", "c")} and train.left_out == 0
    assert labels_of(train) == {"b/x.mp4": "b"} and labels_of(test) == {"c/v.mp4": "c"}
    data.pretrain()
    told = capsys.readouterr().err.splitlines()  # once for each split
    assert told == [
        f"warning: {tmp_path}/train: left out folders without videos (2, such as a)",
        f"warning: {tmp_path}/val: left out folders without videos (1, such as b)",
    ]


def test_what_class_folders_leave_out_is_counted(tmp_path, capsys):
    touch(tmp_path, "train/a/x.mp4", "train/loose.mp4", "train/a/deep/y.mp4", "train/a/deep/z.avi")
    touch(tmp_path, "train/a/u.mp4.part", "train/a/frames.mp4/0001.jpg", "train/b/v.mp4")
    touch(tmp_path, "train/labels.csv")
    source = ClassFolders(str(tmp_path)).train()
    assert list(labels_of(source)) == ["a/x.mp4", "b/v.mp4"] and source.left_out == 3
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/train: left out videos outside of class folders (1, such as "
        "loose.mp4); videos in folders below the classes (2, such as a/deep/y.mp4); folders of "
        "frames, which belong into one .zip file each (1, such as a/frames.mp4); files of other "
        "kinds (2, such as labels.csv)\n"
    )
    for name in ("a/x.mp4", "b/v.mp4"):
        (tmp_path / "train" / name).unlink()
    with pytest.raises(ValueError, match=r"<video>.mp4, got videos in folders .* such as a/deep/y"):
        ClassFolders(str(tmp_path)).train()


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"train", b"caf\xe9")
    os.makedirs(folder)
    write_clip(tmp_path / "x.mp4", frames=5)
    os.rename(tmp_path / "x.mp4", os.path.join(folder, b"v\xff.mp4"))
    touch(tmp_path, "train/été/y.mp4")
    source = ClassFolders(str(tmp_path)).train()
    assert labels_of(source) == {"caf\\xe9/v\\xff.mp4": "caf\\xe9", "été/y.mp4": "été"}
    with source[0].media.open() as reader:
        assert reader.num_frames == 5
    fingerprint(source).encode()


def test_sorted_folders_that_exchange_official_classes_are_named(tmp_path, capsys, videos):
    lists = videos / "annotations"
    official = read_classes(lists / "ucf101" / "ucfTrainTestlist" / "classInd.txt")[0]
    exchanged = {"Hammering", "HammerThrow", "JumpingJack", "JumpRope"}
    pairs = zip(sorted(official), official, strict=True)
    assert {name for pair in pairs for name in pair if pair[0] != pair[1]} == exchanged
    touch(tmp_path, *(f"train/{name}/x.avi" for name in official))
    source = ClassFolders(str(tmp_path)).train()
    assert source.classes["class"] == tuple(sorted(official))
    told = capsys.readouterr().err
    assert all(repr(name) in told for name in exchanged) and "official list of UCF101" in told
    rows = [label for _, label in read_kinetics(lists / "kinetics400" / "kinetics_val.csv")]
    folders = {re.sub("[()']", "", name).replace(" ", "_"): name for name in rows}
    pairs = zip(sorted(set(rows)), [folders[name] for name in sorted(folders)], strict=True)
    exchanged = {name for pair in pairs for name in pair if pair[0] != pair[1]}
    assert exchanged == {"skiing (not slalom or crosscountry)", "skiing crosscountry"}
    touch(tmp_path, *(f"kinetics/train/{name}/x.mp4" for name in folders))
    ClassFolders(str(tmp_path / "kinetics")).train()
    told = capsys.readouterr().err
    assert all(repr(name) in told for name in exchanged) and "official list of Kinetics" in told


def test_folders_in_the_official_order_are_not_named(tmp_path, capsys):
    touch(tmp_path, "train/Hammering/x.avi", "train/JumpRope/x.avi", "train/skiing slalom/x.avi")
    touch(tmp_path, "train/skiing (not slalom or crosscountry)/x.avi")
    touch(tmp_path, "train/skiing_crosscountry/x.avi", "numbers/train/0/x.avi")
    ClassFolders(str(tmp_path)).train()
    assert not capsys.readouterr().err
    touch(tmp_path, "numbers/train/2/x.avi", "numbers/train/10/x.avi")
    assert ClassFolders(str(tmp_path / "numbers")).train().classes["class"] == ("0", "10", "2")
    assert "sorted as text, so that '10' is class 1" in capsys.readouterr().err


def test_lists_are_read_as_csv_files_quote_them(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('"a dog, 2/x ""y"".mp4",3\n"b.mp4","1"\n"odd" name.mp4 2\n')
    rows = [('a dog, 2/x "y".mp4', 3), ("b.mp4", 1), ('"odd" name.mp4', 2)]
    assert read_list(path) == rows
    path.write_text('"a/x.mp4","120","3"\n')
    assert read_list(path, columns="path frames label") == [("a/x.mp4", 3)]
    path.write_text('"my_dogs/x.mp4","120"\n')
    assert read_list(path, columns="path frames") == [("my_dogs/x.mp4", "my dogs")]


def test_paths_of_windows_are_found(tmp_path):
    touch(tmp_path, "a/x.mp4", "b\\y.mp4")
    (tmp_path / "list.txt").write_text("a\\x.mp4 0\nb\\y.mp4 0\n")
    source = ListFile(str(tmp_path), str(tmp_path / "list.txt")).train()
    assert [video.media.path for video in source.videos] == [
        str(tmp_path / "a/x.mp4"),
        str(tmp_path / "b\\y.mp4"),
    ]


@pytest.mark.parametrize("counts", [(48, 48, 48), (1, 47, 250), (2, 3, 4)])
def test_frame_counts_are_not_taken_for_labels(tmp_path, counts):
    names = ("a/x.mp4", "a/y.mp4", "b/z.mp4")
    touch(tmp_path, *names)
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{a} {b}\n" for a, b in zip(names, counts, strict=True)))
    with pytest.raises(ValueError, match="list.txt: only . of the labels 0 to .*'path frames'"):
        ListFile(str(tmp_path), str(path)).train()
    source = ListFile(str(tmp_path), str(path), columns="path frames").train()
    assert list(labels_of(source).values()) == ["a", "a", "b"]
    (tmp_path / "names.txt").write_text("".join(f"class {n}\n" for n in range(1 + max(counts))))
    named = ListFile(str(tmp_path), str(path), classes=str(tmp_path / "names.txt")).train()
    assert list(labels_of(named).values()) == [f"class {n}" for n in counts]


def test_a_label_outside_the_classes_is_named_with_its_line(tmp_path):
    touch(tmp_path, "a.mp4")
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("a.mp4 1\n")
    test.write_text("\na.mp4 1\n\na.mp4 3\n")
    names = tmp_path / "names.txt"
    names.write_text("1 run\n2 walk\n")
    data = ListFile(str(tmp_path), str(train), str(test), classes=str(names))
    with pytest.raises(ValueError, match="test.txt, line 4: label must be 1 to 2, got 3"):
        data.train()
    names.write_text("run\nnan\n")
    with pytest.raises(ValueError, match="names.txt: 'nan' stands for a missing value"):
        data.train()
    names.write_text("1 run\n1 walk\n")
    with pytest.raises(ValueError, match="names.txt: two classes have the same number"):
        data.train()


def test_a_list_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "list.txt"
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes("café.mp4 1\n".encode(encoding))
        with pytest.raises(ValueError, match=r"list.txt is not UTF-8 text: save it as UTF-8"):
            read_list(path)


def test_folders_of_frames_are_to_be_packed(tmp_path):
    touch(tmp_path, "a/x/img_1.jpg", "a/y/img_1.jpg")
    (tmp_path / "list.txt").write_text("a/x.avi 0\na/y 1\n")
    with pytest.raises(ValueError, match=r"2 of 2 .* missing: .*/a/x is a folder: pack its frames"):
        ListFile(str(tmp_path), str(tmp_path / "list.txt")).train()


def test_accents_of_macos_are_those_of_other_systems(tmp_path):
    touch(tmp_path, "train/caf\u00e9/a.mp4", "val/cafe\u0301/b.mp4")
    data = ClassFolders(str(tmp_path))
    assert data.train().classes == data.test().classes == {"class": ("caf\u00e9",)}


def test_links_to_nothing_are_left_out_by_name(tmp_path, capsys):
    touch(tmp_path, "train/run/a.mp4", "train/run/note.txt")
    (tmp_path / "train/walk").symlink_to(tmp_path / "absent")
    assert len(ClassFolders(str(tmp_path)).train()) == 1
    says = capsys.readouterr().err
    assert "links to files or folders that do not exist (1, such as walk); files of other" in says


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.mp4 1\na.mp4 1700000000", "only 2 of the labels 0 to 999999 occur"),
        ("a.mp4 nan", "line 2: 'nan' stands for a missing value, not for a class"),
        ("video,label", "line 1: label must be a name, as 'label' is, got the number 0"),
    ],
)
def test_a_label_that_is_none_is_refused(tmp_path, line, says):
    touch(tmp_path, "a.mp4")
    path = tmp_path / "list.txt"
    path.write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(ValueError, match=f"{path}.*{says}"):
        ListFile(str(tmp_path), str(path)).train()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("walk 1\nrun 0\n", ("run", "walk")),
        ("walk,2\nrun,1\n", ("run", "walk")),
        ("take 0\ntake 1\n", ("take 0", "take 1")),
        ("walk 10\nrun 20\n", ("walk 10", "run 20")),
    ],
)
def test_numbers_of_classes_may_come_last(tmp_path, text, names):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    assert read_classes(path)[0] == names


def test_two_classes_of_one_name_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("long_jump\nrun\nlong jump\n")
    with pytest.raises(ValueError, match="two classes have the same name, 'long jump'"):
        read_classes(tmp_path / "classes.txt")


def test_test_classes_without_training_videos_are_named(tmp_path, capsys):
    touch(tmp_path, "train/run/a.mp4", "train/walk/a.mp4", "val/Run/b.mp4", "val/walk/b.mp4")
    data = ClassFolders(str(tmp_path))
    warn_about_untrained(data.train(), data.test())
    says = "class: 1 of 2 classes of the test videos have no training video, such as 'Run'"
    assert says in capsys.readouterr().err
    warn_about_untrained(data.test(), data.test())
    assert not capsys.readouterr().err
