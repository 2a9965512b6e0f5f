import numpy as np
import pytest

from vrl_jax.detection import ava_boxes


def test_the_official_samples(videos):
    folder = videos / "annotations" / "ava"
    rows = ava_boxes.read_annotations(folder / "ava_sample.csv")
    assert len(rows.video) == 8 and set(rows.video) == {"0f39OWEqJ24", "_-Z6wFjXtGQ"}
    assert rows.keys()[0] == ("0f39OWEqJ24", 902.0)
    np.testing.assert_array_equal(rows.box[3], [0.034, 0.189, 0.669, 0.980])
    assert rows.action.tolist() == [12, 17, 79, 12, 17, 12, 74, 80]
    assert (rows.person == 0).all() and (rows.score == 1).all()
    actions = ava_boxes.read_actions(folder / "action_list.txt")
    assert actions == {12: "action1", 17: "action2", 79: "action3", 80: "action3"}
    excluded = ava_boxes.read_excluded(folder / "ava_excluded_timestamps_sample.csv")
    assert excluded == {("0f39OWEqJ24", 903.0), ("_-Z6wFjXtGQ", 902.0)}
    assert rows.without(excluded).keys() == [("0f39OWEqJ24", 902.0)] * 3
    instances = ava_boxes.collect_instances(rows, (12, 17, 74))
    assert instances.keys == [*rows.keys()[:4:3], ("_-Z6wFjXtGQ", 902.0)]
    assert instances.labels.tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 1]]


def same(one, other):
    for got, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_what_is_written_reads_back(tmp_path, rng):
    n, path = 20, tmp_path / "rows.csv"
    corners = rng.uniform(-0.4, 0.5, (n, 2))
    rows = ava_boxes.Boxes(
        np.array([f'video "{number}", cut' for number in rng.integers(0, 3, n)]),
        np.where(np.arange(n) % 2, 902.0, 1798.04),
        np.concatenate([corners, corners + rng.uniform(0.01, 0.9, (n, 2))], 1),
        rng.integers(1, 80, n),
        rng.integers(0, 9, n),
        np.where(np.arange(n) == 5, -1.0, rng.normal(size=n)),
    )
    ava_boxes.write_annotations(path, rows)
    same(ava_boxes.read_annotations(path), rows._replace(score=np.ones(n)))
    ava_boxes.write_predictions(path, rows)
    same(ava_boxes.read_predictions(path), rows._replace(person=np.full(n, ava_boxes.NONE)))
    assert ",0902," in path.read_text().splitlines()[1]


def test_rows_without_box_action_or_person(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,0902\r\na,0903,,,,,,\r\na,904,0,0,1,0.5,,0.9\r\n\r\nb,7,0,0,1,1,3\r\n")
    rows = ava_boxes.read_predictions(path)
    assert rows.keys() == [("a", 904.0), ("b", 7.0)]
    assert rows.action.tolist() == [ava_boxes.NONE, 3] and rows.score.tolist() == [0.9, 1]
    ava_boxes.write_predictions(path, rows)
    assert path.read_text().splitlines()[0] == "a,0904,0.0,0.0,1.0,0.5,,0.9"
    same(ava_boxes.read_predictions(path), rows)
    path.write_text("")
    assert len(ava_boxes.read_predictions(path).box) == 0


def test_boxes_are_collected_in_the_order_of_their_key_frames(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [
        "b,2,0,0,.5,1,4,1",
        "a,9,0,0,.5,1,4,1",
        "b,1,0,0,.6,1,5,1",
        "a,9,0,0,.7,1,80,2",
        "a,9,0,0,.5,1,5,1",
    ]
    path.write_text("\n".join(lines))
    instances = ava_boxes.collect_instances(ava_boxes.read_annotations(path), (4, 5))
    assert instances.keys == [("a", 9.0), ("b", 1.0), ("b", 2.0)]
    assert instances.frame.tolist() == [0, 0, 1, 2]
    assert instances.boxes.box[:, 2].tolist() == [0.5, 0.7, 0.6, 0.5]
    assert instances.labels.tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    "line",
    ["a,1,0,0,1,1", "a,1,0,0,1,x,3,1", "a,1,0,0,1,nan,3,1", "a", "a,1,0,0,1,1,3,1,5", "a,1,2"]
    + ["a,1,30,20,90,200,3,1", "a,1,0,0,1,1.6,3,1", "a,1,-0.6,0,1,1,3,1", "a,1,0.5,0,0.5,1,3,1"]
    + ["a,1,0,0.7,1,0.2,3,1"],
)
def test_other_lines_are_refused(tmp_path, line):
    path = tmp_path / "rows.csv"
    path.write_text(f"a,0902,0,0,1,1,3,0\n{line}\n")
    with pytest.raises(ValueError, match=r"rows.csv, line 2: expected video,time,.* got 'a"):
        ava_boxes.read_annotations(path)


@pytest.mark.parametrize("score", ["nan", "inf", "sure"])
def test_scores_must_be_numbers(tmp_path, score):
    path = tmp_path / "rows.csv"
    path.write_text(f"a,0902,0,0,1,1,3,-2.5\na,0902,0,0,1,1,3,{score}\n")
    with pytest.raises(ValueError, match=rf"rows.csv, line 2: expected .*score.* got 'a.*{score}'"):
        ava_boxes.read_predictions(path)


def test_label_maps_and_exclusions(tmp_path):
    path = tmp_path / "list.pbtxt"
    path.write_text(
        'label {\n  name: "bend/bow (at the waist)"\n  label_id: 1\n  label_type: PERSON_MOVEMENT'
        '\n}\nitem { id: 3 name: "crouch/kneel" }\n'
    )
    assert ava_boxes.read_actions(path) == {1: "bend/bow (at the waist)", 3: "crouch/kneel"}
    path.write_text('item {\n  name: "a"\n}\n')
    with pytest.raises(ValueError, match="must have a name and an id"):
        ava_boxes.read_actions(path)
    path.write_text("walk\n")
    with pytest.raises(ValueError, match="has no action"):
        ava_boxes.read_actions(path)
    path.write_text("a,0902\nb,3,4\n")
    with pytest.raises(ValueError, match="line 2: expected video,time, got 'b,3,4'"):
        ava_boxes.read_excluded(path)
    with pytest.raises(ValueError, match="there is no file"):
        ava_boxes.read_annotations(tmp_path / "absent.csv")


def test_a_header_is_no_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("video_id,time,x1, y1, x2, y2,action,person\na,0902,0,0,1,1,3,0\n")
    assert ava_boxes.read_annotations(path).keys() == [("a", 902.0)]
    path.write_text("video,0902,0,0,1,1,3,0\n")  # the id of a video
    assert ava_boxes.read_annotations(path).keys() == [("video", 902.0)]
    path.write_text("video_id,time,action,x1,y1,x2,y2,person\na,0902,3,0,0,1,1,0\n")
    with pytest.raises(ValueError, match="rows.csv, line 1: expected video,time,x1"):
        ava_boxes.read_annotations(path)
    path.write_text("Video_ID,timestamp\na,0902\n")
    assert ava_boxes.read_excluded(path) == {("a", 902.0)}


@pytest.mark.parametrize("line", ["a,x", "a,nan", "a", "video_id,time"])
def test_excluded_frames_without_a_time_are_named(tmp_path, line):
    path = tmp_path / "excluded.csv"
    path.write_text(f"b,0902\n{line}\n")
    with pytest.raises(ValueError, match=f"excluded.csv, line 2: expected video,time, got '{line}"):
        ava_boxes.read_excluded(path)


def test_tables_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("é,0902,0,0,1,1,3,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match="rows.csv is not UTF-8 text"):
        ava_boxes.read_annotations(path)
