import json
import shutil

import av
import jax
import numpy as np
import pytest

from tests.arrays import load_arrays
from tests.jitted import encoders_compiled_once
from vrl_jax import pretrained
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.detection import __main__, action_head, ava_boxes, box_features
from vrl_jax.detection.box_features import BoxFeatures
from vrl_jax.detection.frame_metrics import frame_mean_ap, roi_align
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.probes import feature_file
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.report import __main__ as report

COLOURS = {3: (220, 30, 30), 7: (30, 30, 220)}
ACTIONS = 'item { name: "red" id: 3 }\nitem { name: "blue" id: 7 }\nitem { name: "none" id: 8 }\n'
WIDE, HIGH = 96, 64


def write_video(path, boxes):
    """60 frames of noise, and in it boxes of the colours of their actions."""
    rng = np.random.default_rng(len(boxes))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        for _ in range(60):
            image = rng.integers(90, 130, (HIGH, WIDE, 3)).astype(np.uint8)
            for (left, top, right, bottom), action in boxes:
                rows = slice(round(top * HIGH), round(bottom * HIGH))
                image[rows, round(left * WIDE) : round(right * WIDE)] = COLOURS[action]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def make_model():
    encoder = Tiny(widths=(8, 12), strides=(4, 1), conv="native")
    return pretrained.init_untrained(encoder, Augment(size=32), frames=4, seed=1)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with encoders_compiled_once(box_features):
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with a model, videos and AVA's files; test has a video that is damaged."""
    root, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    pretrained.save(root / "model.safetensors", make_model())
    (root / "list.pbtxt").write_text(ACTIONS)
    (root / "excluded.csv").write_text("test0,0901\n")
    for part, count in (("train", 12), ("test", 7)):
        lines = []
        for number in range(count):
            name, boxes = f"{part}{number}", []
            for place in range(1 + number % 2):
                left, top = 0.05 + 0.5 * place + rng.uniform(0, 0.1), rng.uniform(0.05, 0.4)
                box = np.round([left, top, left + 0.35, top + 0.5], 3).tolist()
                boxes.append((box, int(rng.choice([3, 7]))))
            for second in (901, 902)[: 1 + number % 2]:
                lines += [
                    f"{name},0{second},{','.join(map(str, box))},{action},{person}"
                    for person, (box, action) in enumerate(boxes)
                ]
            if name == "test4":
                (root / f"{name}.mp4").write_bytes(b"nothing")
            else:
                write_video(root / f"{name}.mkv", boxes)
        of_no_interest = f"{lines[-1].rsplit(',', 2)[0]},99,0"
        (root / f"{part}.csv").write_text("\n".join([*lines, of_no_interest]))
    return root


def run(root, out, *options, model=None):
    arguments = [f"--{part}={root}/{part}.csv" for part in ("train", "test")]
    cut = ["--frames=4", "--stride=2", "--batch=8", "--workers=0", "--start=900"]
    cut += ["--max-failed=0.2"]
    model = str(model or root / "model.safetensors")
    __main__.main(
        [model, f"--root={root}", *arguments, f"--actions={root}/list.pbtxt", f"--out={out}"]
        + [*cut, "--no-untrained", *options]
    )
    return json.loads((out / "results" / "detection-action.json").read_text())


def test_colours_are_told_apart_end_to_end(world, tmp_path, capsys):
    result = run(world, tmp_path, f"--excluded={world}/excluded.csv", "--untrained")
    plain = json.loads((tmp_path / "results/detection-action-untrained.json").read_text())
    assert plain["model"]["init"] == "untrained" and plain["protocol"] == result["protocol"]
    assert plain["model"]["weights"] != result["model"]["weights"]
    rows = ava_boxes.read_annotations(world / "test.csv").without({("test0", 901.0)})
    predictions = ava_boxes.read_predictions(tmp_path / "predictions.csv")
    again = frame_mean_ap(rows, predictions, (3, 7, 8))
    assert result["value"] == pytest.approx(again.value)
    missing = {a: (rows.action[rows.video == "test4"] == a).sum() for a in (3, 7)}
    most = [1 - missing[a] / (rows.action == a).sum() for a in (3, 7)]
    assert result["chance"] + 0.2 < result["value"] <= np.mean(most) + 1e-9
    assert result["value"] == pytest.approx(np.mean(most), abs=0.05)
    assert set(result["per_class"]) == {"red", "blue"}
    assert result["unreadable"] == {"train": 0, "test": 1}
    assert "test0" not in predictions.video and "test4" not in predictions.video
    assert len(predictions.video) == 3 * (
        len(ava_boxes.collect_instances(rows, (3, 7, 8)).frame) - 1
    )
    assert result["protocol"]["boxes"] == "annotated" and result["protocol"]["frames"] == 4
    assert result["model"]["weights"] == pretrained.load(world / "model.safetensors").weight_hash()
    assert f"frame mAP {result['value']:.4f}" in capsys.readouterr().out
    frames = load_arrays(tmp_path / "test-frames.npz")
    unread = frames["video"] == "test4"
    assert ((frames["unreadable"] != "") == unread).all() and unread.sum() == 1
    assert "test4.mp4: Invalid data" in frames["unreadable"][unread][0]
    np.testing.assert_array_equal(np.isnan(frames["features"]).any((1, 2)), unread)


def test_a_boxes_features_are_cut_out_where_it_is(world, tmp_path):
    """The frame of 96 x 64 fits into 32 x 32 as 32 x 21, below five black rows."""
    run(world, tmp_path)
    boxes, frames = (load_arrays(tmp_path / f"train-{name}.npz") for name in ("boxes", "frames"))
    model = pretrained.load(world / "model.safetensors")

    @jax.jit
    def encode(clip, box):
        features = model(center_view(clip, model.augment))
        return features.frames[0], roi_align(features.stages[-1][0].mean(0), box).max((1, 2))[0]

    for number in (1, 2, len(boxes["box"]) - 1):
        name, time = str(boxes["video"][number]), float(boxes["time"][number])
        key = round((time - 900) * 25)
        with av.open(str(world / f"{name}.mkv")) as file:
            images = [
                frame.reformat(32, 21, "rgb24").to_ndarray() for frame in file.decode(video=0)
            ]
        clip = np.zeros((1, 4, 32, 32, 3), np.uint8)
        clip[0, :, 5:26] = [images[min(key + at, 59)] for at in (-3, -1, 1, 3)]
        left, top, right, bottom = boxes["box"][number]
        placed = [[left, (5 + 21 * top) / 32, right, (5 + 21 * bottom) / 32]]
        whole, cut = encode(clip, np.array(placed, np.float32))
        np.testing.assert_allclose(boxes["features"][number], cut, atol=1e-4)
        (row,) = np.flatnonzero((frames["video"] == name) & (frames["time"] == time))
        np.testing.assert_allclose(frames["features"][row], whole, atol=1e-4)
    assert boxes["features"].std(0).min() > 1e-3


def test_detected_boxes_take_the_place_of_annotated_ones(world, tmp_path):
    rows = ava_boxes.read_annotations(world / "test.csv")
    unlabelled = rows._replace(action=np.full_like(rows.action, ava_boxes.NONE))
    shifted = unlabelled._replace(box=unlabelled.box + 0.01)
    ava_boxes.write_predictions(tmp_path / "boxes.csv", shifted)
    result = run(world, tmp_path, f"--boxes={tmp_path}/boxes.csv")
    assert result["protocol"]["boxes"] == "detected" and result["value"] > 0.5
    assert result["protocol"]["min_score"] == 0.8 and "chance" not in result
    predictions = ava_boxes.read_predictions(tmp_path / "predictions.csv")
    assert {tuple(box) for box in predictions.box} <= {tuple(box) for box in shifted.box}
    fewer = rows.take(rows.video != "test1")
    ava_boxes.write_annotations(tmp_path / "fewer.csv", fewer)
    options = f"--boxes={tmp_path}/boxes.csv", f"--test={tmp_path}/fewer.csv"
    other = run(world, tmp_path, *options)["data"]
    assert {key for key in other if other[key] != result["data"][key]} == {"test"}
    unsure = shifted._replace(score=np.where(np.arange(len(rows.score)) < 3, 0.7, 0.8))
    ava_boxes.write_predictions(tmp_path / "unsure.csv", unsure)
    options = f"--boxes={tmp_path}/unsure.csv", "--max-failed=0.5"
    run(world, tmp_path / "sure", *options)
    sure = load_arrays(tmp_path / "sure/test-boxes.npz")["box"]
    assert {tuple(box) for box in sure} == {tuple(box) for box in shifted.box[3:]}
    run(world, tmp_path / "all", *options, "--min-score=0.7")
    assert len(load_arrays(tmp_path / "all/test-boxes.npz")["box"]) > len(sure)
    away = shifted._replace(box=shifted.box * 0.2)
    ava_boxes.write_predictions(tmp_path / "boxes.csv", away)
    assert run(world, tmp_path / "away", f"--boxes={tmp_path}/boxes.csv")["value"] == 0


def test_goes_on_where_it_was(world, tmp_path, monkeypatch):
    add = feature_file.FeatureParts.add

    def add_and_stop(parts, **columns):
        add(parts, **columns)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_file.FeatureParts, "add", add_and_stop)
        run(world, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped/train-boxes.npz.parts").glob("*.npz"))) == 1
    stopped, whole = (run(world, tmp_path / name) for name in ("stopped", "whole"))
    assert stopped == whole
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    files = [f"{part}-{of}.npz" for part in ("test", "train") for of in ("boxes", "frames")]
    others = ["config.json", "environment.json", "predictions.csv", "results"]
    assert names == sorted([*files, *others])
    for name in [*files, "predictions.csv"]:
        assert (tmp_path / "stopped" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()
    with pytest.raises(SystemExit, match="protocol.stride: was 2, is 1"):
        run(world, tmp_path / "whole", "--stride=1")
    with pytest.raises(SystemExit, match="data.boxes: was"):
        run(world, tmp_path / "whole", f"--train={world}/test.csv")


def test_what_cannot_work_is_refused(world, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(SystemExit, match="^error: .*empty.csv has no box"):
        run(world, tmp_path, f"--test={tmp_path}/empty.csv")
    with pytest.raises(
        SystemExit, match="18 of 18 key frames cannot be read.*train0.* delete .*parts"
    ):
        run(world, tmp_path, "--start=0", "--max-failed=1")
    with pytest.raises(SystemExit, match="12 of 12 listed videos are missing"):
        run(world, tmp_path / "lost", f"--root={tmp_path}")
    with pytest.raises(SystemExit, match="1 of 10 key frames .*--max-failed=0.02.*test4.mp4"):
        run(world, tmp_path / "damaged", "--max-failed=0.02")
    assert not list((tmp_path / "damaged").glob("test-*.npz"))
    with pytest.raises(SystemExit, match="try --batch=8"):
        run(world, tmp_path, "--batch=9")


@pytest.mark.parametrize(
    "option, message",
    [
        ("--capacity=-1", "capacity must be at least 0, got -1"),
        ("--train={0}/one.csv", "of 1 training groups leaves one side of the split empty"),
        ("--test={0}/other.csv", "other.csv has none of the actions in .*list.pbtxt"),
        ("--layout=segments", "layout must be one of 'independent', 'centred', got 'segments'"),
        ("--root={0}/zips", "a.zip: key frames need video files"),
        ("--out={0}/run", "--out must not be the folder of a run"),
    ],
)
def test_is_refused_before_anything_is_encoded(world, tmp_path, monkeypatch, option, message):
    lines = (world / "train.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text(lines[0])
    (tmp_path / "other.csv").write_text(lines[-1])
    for name in ("zips", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "run/config.json").write_text('{"kind": "vrl_jax.experiment:Experiment"}')
    options = [option.format(tmp_path)]
    if "zips" in option:
        for name in ("a", "b"):
            (tmp_path / f"zips/{name}.zip").write_bytes(b"")
        (tmp_path / "zips.csv").write_text(
            "".join(f"{name},0901,0,0,1,1,3,0\n" for name in ("a", "b"))
        )
        options.append(f"--train={tmp_path}/zips.csv")
    monkeypatch.setattr(box_features, "eval_batches", lambda *_, **__: pytest.fail("it is encoded"))
    with pytest.raises(SystemExit, match=message):
        run(world, tmp_path / "out", *options)


def test_features_do_not_depend_on_names_and_actions(world, tmp_path, monkeypatch):
    """Nor is anything read again, then."""
    first = run(world, tmp_path)
    (tmp_path / "test-boxes.npz.parts").mkdir()
    shutil.copy(world / "model.safetensors", tmp_path / "moved.safetensors")
    (tmp_path / "list.pbtxt").write_text(ACTIONS.replace("none", "no one"))
    rows = ava_boxes.read_annotations(world / "train.csv")
    ava_boxes.write_annotations(tmp_path / "train.csv", rows._replace(action=10 - rows.action))
    monkeypatch.setattr(
        box_features, "eval_batches", lambda *_, **__: pytest.fail("it is read again")
    )
    options = f"--train={tmp_path}/train.csv", f"--actions={tmp_path}/list.pbtxt"
    second = run(world, tmp_path, *options, model=tmp_path / "moved.safetensors")
    assert second["value"] < 0.5 < first["value"]
    differ = {key for key in first["data"] if first["data"][key] != second["data"][key]}
    assert differ == {"train", "test"}
    assert second["model"]["init"].endswith("moved.safetensors")
    assert not (tmp_path / "test-boxes.npz.parts").exists()


def test_the_report_shows_it(world, tmp_path):
    result = run(world, tmp_path, "--untrained")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["capacity"] == 0 and config["encoder"]["kind"] == "vrl_jax.encoders.tiny:Tiny"
    assert result["protocol"]["head"]["steps"] == 300 and "batch" not in result["protocol"]
    report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert "encoder Tiny" in page and "frame mAP" in page and "jaxlib" in page
    assert f"{100 * result['value']:.1f}" in page or f"{result['value']:.3f}" in page


def test_boxes_that_were_not_read_do_not_count_where_settings_are_chosen(rng):
    """Every third key frame is not read; what is left is told apart without an error."""
    n, actions = 60, (3, 7)
    number = np.arange(n)
    rows = ava_boxes.Boxes(
        np.array([f"video{at % 6}" for at in number]),
        number // 6.0,
        np.tile([0.1, 0.2, 0.5, 0.9], (n, 1)),
        rng.choice(actions, n),
        np.zeros(n, int),
        np.ones(n),
    )
    instances, read = ava_boxes.collect_instances(rows, actions), number % 3 > 0
    noise = rng.normal(0, 0.01, (n, 2))
    features = np.where(read[:, None], instances.labels + noise, np.nan).astype(np.float32)
    encoded = BoxFeatures(instances, features, read)
    chosen = action_head.train_head(encoded, rows, encoded, actions, LinearProbe(steps=60))
    assert chosen.held_out_score == 1
    predictions = action_head.predict_actions(encoded, chosen.logits, actions)
    unread = set(instances.boxes.take(~read).keys())
    assert frame_mean_ap(rows, predictions, actions, excluded=unread).value == 1
    assert 0.5 < frame_mean_ap(rows, predictions, actions).value < 0.8


def test_times_may_be_numbers_of_frames(world, tmp_path):
    for part in ("train", "test"):
        rows = ava_boxes.read_annotations(world / f"{part}.csv")
        frames = rows._replace(time=(rows.time - 900) * 25 + 1)
        ava_boxes.write_annotations(tmp_path / f"{part}.csv", frames)
    files = [f"--{part}={tmp_path}/{part}.csv" for part in ("train", "test")]
    got = run(world, tmp_path, "--times=frames", *files)
    expected = run(world, tmp_path / "seconds")
    assert got["value"] == expected["value"] and got["protocol"]["times"] == "frames"
