import re

import pytest

from tests.data.datasets.test_video_folders import labels_of, touch
from vrl_jax.data.datasets.other_benchmarks import NTU60, NTU_SUBJECTS, Charades, FineGym99
from vrl_jax.data.datasets.video_folders import ListFile
from vrl_jax.data.video_dataset import Listing, fingerprint, is_multilabel, label_array

ELEMENTS = ("A0xAXXysHUo_E_002184_002237_A_0035_0036", "_-abc_E_01_02_A_03_04", "x_E_1_2_A_3_4")


def write_gym(folder):
    folder.mkdir()
    (folder / "gym99_train_element_v1.1.txt").write_text(f"{ELEMENTS[0]} 1\n{ELEMENTS[1]} 0\n")
    (folder / "gym99_val_element.txt").write_text(f"{ELEMENTS[2]} 1\n")
    (folder / "gym99_categories.txt").write_text(
        "Clabel: 0; set: 1; Glabel: 1; (VT) round-off, flic-flac with 0.5 turn on\n"
        "Clabel: 1; set: 21; Glabel: 7; (FX) switch leap; with 1 turn\n"
    )
    return str(folder)


def test_finegym_is_read_as_published(tmp_path):
    touch(tmp_path, *(f"clips/{name}.mp4" for name in ELEMENTS[1:]), f"clips/{ELEMENTS[0]}.mkv")
    data = FineGym99(str(tmp_path / "clips"), write_gym(tmp_path / "lists"))
    names = ("(VT) round-off, flic-flac with 0.5 turn on", "(FX) switch leap; with 1 turn")
    assert data.train().classes == data.test().classes == {"class": names}
    assert labels_of(data.train()) == {ELEMENTS[0]: names[1], ELEMENTS[1]: names[0]}
    assert labels_of(data.test()) == {ELEMENTS[2]: names[1]}
    (tmp_path / "lists/gym99_val_element.txt").write_text(f"\n{ELEMENTS[2]} 2\n")
    with pytest.raises(
        ValueError, match="gym99_val_element.txt, line 2: label must be 0 to 1, got"
    ):
        data.test()
    (tmp_path / "lists/gym99_categories.txt").write_text("Clabel: 1; set: 1; Glabel: 1; (VT) x\n")
    with pytest.raises(ValueError, match="categories.txt, line 1: must be 'Clabel: 0; set"):
        data.train()


def test_ntu_is_split_by_persons_or_cameras(tmp_path, capsys):
    published = "1 2 4 5 8 9 13 14 15 16 17 18 19 25 27 28 31 34 35 38"
    assert " ".join(map(str, NTU_SUBJECTS)) == published
    names = [
        f"S001C{camera:03}P{person:03}R001A{action:03}_rgb.avi"
        for camera in (1, 2, 3)
        for person, action in ((1, 1), (3, 60), (38, 2))
    ]
    touch(tmp_path, *names[:5], *(f"nturgb+d_rgb/{name}" for name in names[5:]))
    touch(tmp_path, "S018C001P041R001A061_rgb.avi", "S001C001P001R001A000_rgb.avi")
    data = NTU60(str(tmp_path))
    assert isinstance(data, Listing)
    train, test = data.train(), data.test()
    assert len(train) == 6 and set(labels_of(train).values()) == {"A001", "A002"}
    assert len(test) == 3 and set(labels_of(test).values()) == {"A060"}
    assert len(train.classes["class"]) == 60 and train[0].labels == {
        "class": 0, "person": 0, "camera": 0
    }  # fmt: skip
    assert train.left_out == 2 and "left out 2 videos that are not" in capsys.readouterr().err
    view = NTU60(str(tmp_path), protocol="xview")
    assert len(view.train()) == 6 and {v.labels["camera"] for v in view.test().videos} == {0}
    assert [video.id for video in view.test().videos] == [name[:24] for name in sorted(names)[:3]]
    with pytest.raises(ValueError, match="protocol must be one of 'xsub', 'xview'"):
        NTU60(protocol="cs")
    touch(tmp_path, "empty/x.avi")
    with pytest.raises(ValueError, match=re.escape("expected files like S001C001P001R001A001")):
        NTU60(str(tmp_path / "empty")).train()


def write_charades(folder, **more):
    folder.mkdir()
    (folder / "Charades_v1_classes.txt").write_text(
        "c000 Holding clothes\nc001 Putting, down\nc002 Sit\n"
    )
    head = "id,subject,script,actions,length\n"
    (folder / "Charades_v1_train.csv").write_text(
        f'{head}46GP8,HR43,"A person, cooking",c002 0.0 12.6;c000 11.9 21.2;c002 13.0 14.0,31\n'
        "N11GT,0KZ7,Nothing,,12.5\n"
    )
    (folder / "Charades_v1_test.csv").write_text(f"{head}0IH69,X,Sits,c001 0.00 1.00,9\n")
    return str(folder)


def test_videos_of_charades_have_several_classes(tmp_path):
    touch(tmp_path, *(f"v/{name}.mp4" for name in ("46GP8", "N11GT", "0IH69")))
    data = Charades(str(tmp_path / "v"), write_charades(tmp_path / "lists"))
    train, test = data.train(), data.test()
    assert train.classes == test.classes == {"class": ("Holding clothes", "Putting, down", "Sit")}
    assert [video.labels for video in train.videos] == [{"class": (0, 2)}, {"class": ()}]
    assert is_multilabel(train, "class") and test[0].labels == {"class": (1,)}
    assert label_array(train, "class").tolist() == [[True, False, True], [False] * 3]
    assert fingerprint(train) != fingerprint(test)
    path = tmp_path / "lists/Charades_v1_train.csv"
    path.write_text("id,actions\n46GP8,c009 1 2\n")
    with pytest.raises(ValueError, match="train.csv, line 2: there is no class 'c009'"):
        data.train()
    path.write_text("id,subject\n46GP8,c009\n")
    with pytest.raises(ValueError, match="has no column actions: got"):
        data.train()


def test_lists_of_jester_are_read_by_list_file(tmp_path):
    touch(tmp_path, "20bn-jester-v1/34870.zip", "20bn-jester-v1/56557.zip", "20bn-jester-v1/9.zip")
    (tmp_path / "jester-v1-labels.csv").write_text(
        "Swiping Left\nSwiping Right\nDrumming Fingers\n"
    )
    (tmp_path / "jester-v1-train.csv").write_text("34870;Drumming Fingers\n56557;Swiping Left\n")
    (tmp_path / "jester-v1-validation.csv").write_text("9;Swiping Right\n")
    data = ListFile(
        str(tmp_path / "20bn-jester-v1"),
        str(tmp_path / "jester-v1-train.csv"),
        str(tmp_path / "jester-v1-validation.csv"),
        classes=str(tmp_path / "jester-v1-labels.csv"),
        mirror_safe=False,
    )
    assert labels_of(data.train()) == {"34870": "Drumming Fingers", "56557": "Swiping Left"}
    assert [video.labels["class"] for video in data.test().videos] == [1]
    assert not data.train().mirror_safe


def test_actions_of_charades_that_run_together_are_refused(tmp_path):
    touch(tmp_path, "46GP8.mp4")
    lists = write_charades(tmp_path / "lists")
    rows = 'id,actions\n46GP8,"c000 1.0 2.0, c001 0.0 3.0"\n'
    (tmp_path / "lists/Charades_v1_train.csv").write_text(rows)
    with pytest.raises(ValueError, match="line 2: actions must be like .*, got 'c000 1.0 2.0, c"):
        Charades(str(tmp_path), lists).train()
