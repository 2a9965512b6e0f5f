import argparse
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import synthetic_simclr
from tests.arrays import load_arrays
from tests.data.misbehaving import LINES
from tests.data.tools.test_video_index import write_set
from tests.data.video.test_video_decoder import write_clip
from tests.jitted import encoders_compiled_once
from vrl_jax import config, embed, pretrained
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling, uniform_clips
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation.encode_videos import add_options, read_encode_config
from vrl_jax.probes import feature_file

ROOT = Path(__file__).parents[1]
FAKE = "tests.data.misbehaving:Named"
CUT = ["--frames=4", "--stride=3", "--clips=3", "--batch=8", "--workers=0", "--resize=20x28"]


def make_model(seed=0):
    encoder = Tiny(widths=(4, 6), strides=(4, 2), conv="native")
    augment = Augment(size=16, mean=(0.4, 0.5, 0.6))
    model = pretrained.init_untrained(encoder, augment, frames=4, seed=seed)
    return replace(model, origin={"from": "a test"})


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with encoders_compiled_once(embed):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    pretrained.save(path, make_model())
    return str(path)


def run(model, *arguments):
    embed.main([model, *map(str, arguments)])


def test_every_row_is_the_mean_over_the_videos_clips(tmp_path, model, capsys):
    """Eleven videos in batches of eight: the last one is filled up."""
    out = tmp_path / "new" / "features.npz"
    run(model, "Synthetic", "train_videos=11", "frames=20", "--part=train", f"--out={out}", *CUT)
    assert capsys.readouterr().out == f"{out}: 11 videos, 0 unreadable\n"
    encoder, source = pretrained.load(model), Synthetic(train_videos=11, frames=20).train()
    encode = jax.jit(lambda clips: encoder(center_view(clips, encoder.augment)).clip)
    columns = load_arrays(out)
    for number in range(11):
        video = source[number]
        frames = uniform_clips(20, 25.0, Sampling(frames=4, stride=3, clips=3))
        clips = video.media.read(frames, (20, 28))
        features = encode(clips)
        np.testing.assert_allclose(columns["features"][number], np.mean(features, 0), atol=1e-5)
        assert columns["id"][number] == video.id
        for label in ("static", "dynamic"):
            assert columns[f"label_{label}"][number] == video.labels[label]
    assert columns["features"].dtype == np.float32 and columns["features"].std(0).min() > 1e-3
    about = json.loads(str(columns["about"]))
    assert about == feature_file.read_about(out)
    model_about = {"encoder": "Tiny", "from": "a test", "weights": encoder.weight_hash()}
    assert model_about.items() <= about["model"].items()
    assert about["data"]["part"] == "train" and about["classes"]["dynamic"][0] == "right"
    protocol = {"clips": 3, "frames": 4, "stride": 3, "decoded": "20 x 28", "resolution": "16 x 16"}
    assert protocol.items() <= about["protocol"].items()
    assert about["protocol"]["input_mean"] == [0.4, 0.5, 0.6]
    assert about["model"]["config"] == repr(encoder.encoder) and "(4, 6)" in repr(encoder.encoder)
    assert about["protocol"]["background"] == "kept" and about["parts"] == {"batch": 8}
    assert about["protocol"]["layout"] == "independent" and "batch" not in about["protocol"]


def test_parquet_says_the_same(tmp_path, model):
    parquet = pytest.importorskip("pyarrow.parquet")
    data = ("Synthetic", "test_videos=3", "frames=20", *CUT, "--per-clip")
    for suffix in ("npz", "parquet"):
        run(model, *data, f"--out={tmp_path}/features.{suffix}")
    columns, table = (
        load_arrays(tmp_path / "features.npz"),
        parquet.read_table(tmp_path / "features.parquet"),
    )
    assert columns["features"].shape == (3, 3, 6)
    np.testing.assert_array_equal(table["features"].to_pylist(), columns["features"])
    for name in ("id", "label_static", "label_dynamic", "unreadable"):
        assert table[name].to_pylist() == columns[name].tolist()
    assert feature_file.read_about(tmp_path / "features.parquet") == json.loads(
        str(columns["about"])
    )


def test_what_cannot_be_read_has_a_row_that_says_why(tmp_path, model):
    root = write_set(tmp_path / "set", [line for line in LINES if "absent" not in line])
    (root / "more").mkdir()
    write_clip(root / "more" / "also.mp4", frames=9)
    run(model, root, f"--out={tmp_path}/loose.npz", *CUT)
    columns = load_arrays(tmp_path / "loose.npz")
    assert len(columns["id"]) == 7 and "more/also.mp4" in columns["id"]
    assert sorted(columns["id"]) == columns["id"].tolist()
    damaged = columns["id"] == "damaged.mp4"
    assert ((columns["unreadable"] != "") == damaged).all()
    assert "damaged.mp4: Invalid data" in columns["unreadable"][damaged][0]
    np.testing.assert_array_equal(np.isnan(columns["features"]).all(1), damaged)
    np.testing.assert_array_equal(np.isnan(columns["features"]).any(1), damaged)
    assert not any(name.startswith("label") for name in columns)


def test_other_videos_of_the_same_names_are_other_data(tmp_path, model):
    for name, frames in (("one", 9), ("two", 30), ("same", 9)):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", frames=frames)
    shutil.copy(tmp_path / "one/a.mp4", tmp_path / "same/a.mp4")
    out = f"--out={tmp_path}/a.npz"
    run(model, tmp_path / "one", out, *CUT)
    run(model, tmp_path / "same", out, *CUT)
    with pytest.raises(SystemExit, match="data.fingerprint: was"):
        run(model, tmp_path / "two", out, *CUT)


def test_parts_of_unknown_make_are_not_taken(tmp_path, model):
    data = ("Synthetic", "test_videos=9", "frames=20", *CUT)
    run(model, *data, f"--out={tmp_path}/whole.npz")
    parts = feature_file.FeatureParts(tmp_path / "a.npz", {})
    parts.add(features=np.zeros((8, 6), np.float32), unreadable=np.full(8, ""))
    (parts.folder / "about.json").unlink()
    run(model, *data, f"--out={tmp_path}/a.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", bytes(300)])
def test_a_damaged_part_is_named(tmp_path, content):
    parts = feature_file.FeatureParts(tmp_path / "a.npz", {})
    for _ in range(2):
        parts.add(features=np.zeros((8, 6), np.float32), unreadable=np.full(8, ""))
    assert parts.join()["features"].shape == (16, 6)
    (parts.folder / "0000001.npz").write_bytes(content)
    with pytest.raises(ValueError, match="0000001.npz cannot be read: .*; delete .*a.npz.parts to"):
        parts.join()


KILLED = """
import os, signal, sys
from vrl_jax import embed
from vrl_jax.probes.feature_file import FeatureParts

add = FeatureParts.add
def add_two(parts, **columns):
    add(parts, **columns)
    if len(parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
FeatureParts.add = add_two
embed.main(sys.argv[1:])
"""


def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path, model):
    data = ("Synthetic", "test_videos=45", "frames=20", *CUT)
    out, whole = tmp_path / "killed.npz", tmp_path / "whole.npz"
    command = [sys.executable, "-c", KILLED, model, *data, f"--out={out}"]
    process = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL and not out.exists()
    before = list((tmp_path / "killed.npz.parts").glob("*.npz"))
    assert len(before) == 2
    added = []
    with pytest.MonkeyPatch.context() as patch:
        add = feature_file.FeatureParts.add
        patch.setattr(feature_file.FeatureParts, "add", lambda *a, **k: added.append(add(*a, **k)))
        run(model, *data, f"--out={out}")
    assert len(added) == 6 - len(before)
    run(model, *data, f"--out={whole}")
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.npz", "whole.npz"]


def test_parts_and_files_of_another_command_are_refused(tmp_path, model, capsys, monkeypatch):
    other = tmp_path / "other.safetensors"
    pretrained.save(other, make_model(seed=1))
    data = ("Synthetic", "test_videos=9", "frames=20", f"--out={tmp_path}/a.npz", *CUT)
    add = feature_file.FeatureParts.add

    def add_and_stop(parts, **columns):
        add(parts, **columns)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_file.FeatureParts, "add", add_and_stop)
        run(model, *data)
    assert len(list((tmp_path / "a.npz.parts").glob("*.npz"))) == 1
    changed = {
        "model.weights: was": (str(other), data),
        "protocol.stride: was 3, is 2": (model, (*data, "--stride=2")),
        "data.fingerprint: was": (model, (*data, "--part=train", "train_videos=9")),
        "protocol.pooling: was": (model, (*data, "--per-clip")),
    }
    for message, (path, arguments) in changed.items():
        with pytest.raises(SystemExit, match=message):
            run(path, *arguments)
    run(model, *data)
    assert (tmp_path / "a.npz").exists() and not (tmp_path / "a.npz.parts").exists()
    for message, (path, arguments) in changed.items():
        with pytest.raises(SystemExit, match=message):
            run(path, *arguments)
    before = (tmp_path / "a.npz").stat()
    run(model, *data)
    assert "is finished" in capsys.readouterr().out
    assert (tmp_path / "a.npz").stat() == before


def test_what_cannot_work_is_refused(tmp_path, model, monkeypatch, capsys):
    data = ("Synthetic", "test_videos=9", *CUT)
    with pytest.raises(SystemExit, match="^error: .*must end with .npz or .parquet"):
        run(model, *data, f"--out={tmp_path}/a.csv")
    with pytest.raises(SystemExit, match="multiple of the 8 devices, got 3: try --batch=8"):
        run(model, *data, "--batch=3", f"--out={tmp_path}/a.npz")
    with pytest.raises(SystemExit, match="does not define its clips: pass --frames"):
        run(model, "Synthetic", f"--out={tmp_path}/a.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no video in .*empty"):
        run(model, tmp_path / "empty", f"--out={tmp_path}/a.npz", *CUT)
    np.savez(tmp_path / "foreign.npz", x=1)
    with pytest.raises(SystemExit, match="was not written by this command"):
        run(model, *data, f"--out={tmp_path}/foreign.npz")
    with pytest.raises(SystemExit):
        run(model, *data, "--out=gs://bucket/a.npz")
    assert "--out: must be a local path, got gs://bucket/a.npz" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(model, *data, "--resize=128", f"--out={tmp_path}/a.npz")
    assert "--resize: must be HxW, got 128" in capsys.readouterr().err
    monkeypatch.setattr(feature_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'vrl-jax\[parquet\]'"):
        run(model, *data, f"--out={tmp_path}/a.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "foreign.npz"]


def test_a_folder_with_splits_has_classes(tmp_path, model):
    for name in ("train/run/a.mp4", "val/jump/b.mp4", "val/run/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / name, frames=9)
    source = embed.find_videos(str(tmp_path), [], "test")
    assert [source[i].labels["class"] for i in range(len(source))] == [0, 1]
    assert len(embed.find_videos(str(tmp_path / "val"), [], "test")) == 2


def test_a_run_says_how_clips_are_cut():
    parser = argparse.ArgumentParser()
    add_options(parser)
    tree = config.build(synthetic_simclr.get_config())
    sampling = Sampling(8, 2, fps=30.0, layout="segments")
    experiment = replace(tree, sampling=sampling, resize=(32, 40))
    loaded = replace(make_model(), experiment=experiment, sampling=sampling)
    protocol = read_encode_config(loaded, parser.parse_args(["--stride=5"]), clips=7)
    assert protocol.sampling == Sampling(8, 5, 7, 30.0, "segments") and protocol.resize == (32, 40)
    args = parser.parse_args(["--fps=0", "--frames=4", "--layout=independent"])
    protocol = read_encode_config(loaded, args, 1, (16, 24))
    assert protocol.sampling == Sampling(4, 2, 1, 0.0) and protocol.resize == (16, 24)


def test_a_folder_is_read_without_what_is_hidden(tmp_path):
    for name in ("a.mp4", "b/c.MTS", "b/._c.mp4", ".cache/d.mp4", "__MACOSX/b/e.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert [video.id for video in embed._list_folder(tmp_path).videos] == ["a.mp4", "b/c.MTS"]


def test_a_folder_is_read_through_links(tmp_path):
    (tmp_path / "run").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    for name in ("run/a.mp4", "far/b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "run/far").symlink_to(tmp_path / "far")
    (tmp_path / "run/again").symlink_to(tmp_path / "run")
    names = [video.id for video in embed._list_folder(tmp_path / "run").videos]
    assert names == ["a.mp4", "far/b.mp4"]


def test_features_that_are_not_finite_have_a_reason(tmp_path):
    model = make_model()
    variables = jax.tree.map(lambda x: x * np.nan, model.variables)
    pretrained.save(tmp_path / "nan.safetensors", replace(model, variables=variables))
    out = tmp_path / "x.npz"
    data = ["Synthetic", "test_videos=3", "frames=20"]
    run(str(tmp_path / "nan.safetensors"), *data, f"--out={out}", *CUT)
    assert set(load_arrays(out)["unreadable"]) == {embed.NOT_FINITE}
