"""The sheet shows the views of the training step under the right labels."""

import dataclasses
import importlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from tests.data.video.test_video_decoder import write_clip
from tests.test_main import COLOURLESS, ENVIRONMENT, ROOT, command
from vrl_jax import browse, config
from vrl_jax.data.data_loader import train_batches
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.train import sharding
from vrl_jax.train.train_step import TrainState, make_step

STEP = 3
DECODED = (12, 16)


def small(name, augment=None, method=None):
    """Return an experiment of tiny clips, and its method."""
    got = config.build(importlib.import_module(f"configs.{name}").get_config())
    experiment = dataclasses.replace(
        got,
        data=Synthetic(pretrain_videos=40, frames=20),
        sampling=dataclasses.replace(got.sampling, frames=10),
        resize=DECODED,
        augment=dataclasses.replace(got.augment, size=8, **(augment or {})),
        encoder=Tiny(widths=(4, 6), strides=(2, 1), conv="native"),
        method=dataclasses.replace(got.method, **(method or {})),
        train=dataclasses.replace(got.train, batch=16, seed=5),
    )
    horizon = experiment.train.horizon(40)
    return experiment, experiment.method.build(experiment.encoder, experiment.framework, horizon)


def seen_in_training(experiment, method):
    """Return the views that the upper level's loss is given by the real training step."""
    settings, mesh = experiment.sampling, sharding.make_mesh()
    levels = 1 + (method.inner.steps if method.inner else 0)
    batches = train_batches(
        experiment.data.pretrain(),
        settings,
        experiment.resize,
        batch=16 * levels,
        seed=experiment.train.seed,
        start=STEP,
        loader=experiment.loader,
    )
    clips = next(batches)["clips"]
    batches.close()
    method = method._replace(
        loss=lambda params, state, views, key, step: (jnp.sum(params), (views, {})),
        update=lambda params, state, aux, step: (params, aux),
        inner=method.inner
        and method.inner._replace(loss=lambda params, *_: jnp.sum(params), joint=None),
    )
    optimizer = optax.sgd(0.0)
    step = make_step(method, optimizer, experiment.augment, experiment.train.seed, mesh)
    params = jnp.zeros(())
    shape = (16, len(method.views), settings.frames, 8, 8, 3)
    start = TrainState(jnp.int32(STEP), params, jnp.zeros(shape), optimizer.init(params))
    return clips[::levels], np.asarray(step(start, sharding.shard_rows(mesh, clips))[0].state)


CASES = {
    "synthetic_bod": dict(method={"inner_steps": 1}, augment={"blur": 0.5}),
    "synthetic_sdc": dict(
        augment={"jitter": 0.0, "reverse": 0.5, "mean": (0.1, 0.2, 0.3), "std": (0.1, 0.2, 0.4)}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sheet_shows_what_the_training_step_sees(name):
    experiment, method = small(name, **CASES[name])
    clips, views = seen_in_training(experiment, method)
    assert np.ptp(views) > 1
    source = experiment.data.pretrain()
    batch = browse.read_batch(experiment, source, method, 3, STEP)
    np.testing.assert_array_equal(batch["clips"], clips[:3])
    pixels = browse.draw_views(experiment, method, batch["clips"], STEP)
    np.testing.assert_allclose(pixels, views[:3], atol=1e-4)
    strips = browse.arrange_strips(method.views, batch["clips"], pixels, experiment.augment)
    times = [0, 1, 3, 4, 5, 6, 8, 9]
    mean, std = np.array(experiment.augment.mean), np.array(experiment.augment.std)
    for strip in strips:
        kind, number = strip.label.split()[:2]
        if kind == "clip":
            assert strip.clip == int(number)
            expected = clips[:3, int(number), times] / 255
        else:
            assert strip.clip == method.views[int(number)].clip
            expected = views[:3, int(number), times] * std + mean
        np.testing.assert_allclose(strip.frames, expected, atol=1e-4)
        assert 0 <= strip.frames.min() and strip.frames.max() <= 1


@pytest.mark.parametrize("show, rows", [(1, 1), (5, 5), (16, 16), (99, 16)])
def test_as_many_rows_are_read_as_there_are(show, rows):
    experiment, method = small("synthetic_simclr")
    source = experiment.data.pretrain()
    batch = browse.read_batch(experiment, source, method, show, 0)
    assert batch["clips"].shape == (rows, 2, 10, *DECODED, 3)
    assert len(batch["index"]) == rows


def test_strips_are_told_apart():
    labels = {}
    for name in ("synthetic_dualvar", "synthetic_sdc", "synthetic_hdc"):
        same = {"temporal_same_draw": True} if name == "synthetic_hdc" else {}
        experiment, method = small(name, method=same)
        clips = np.zeros((1, 2, 10, *DECODED, 3), np.uint8)
        pixels = np.zeros((1, len(method.views), 10, 8, 8, 3), np.float32)
        strips = browse.arrange_strips(method.views, clips, pixels, experiment.augment)
        labels[name] = [strip.label for strip in strips]
    assert labels == {
        "synthetic_dualvar": ["clip 0", "view 0\nweak 0.2", "view 1", "clip 1", "view 2"],
        "synthetic_sdc": ["clip 0", "view 0", "view 2\nstill", "clip 1", "view 1", "view 3\nstill"],
        "synthetic_hdc": ["clip 0", "view 0", "view 1", "clip 1", "view 2\nas view 0"],
    }


@pytest.mark.parametrize(
    "name, method, views",
    [
        ("synthetic_bod", {}, 2),
        ("synthetic_simclr", {"reversed_negatives": True}, 3),
        ("synthetic_dualvar", {}, 4),
        ("synthetic_sdc", {}, 6),
    ],
)
def test_the_network_s_views_are_counted(name, method, views):
    experiment, built = small(name, method=method)
    shape = (2, len(built.views), 10, 8, 8, 3)
    assert browse.network_views(built, jax.ShapeDtypeStruct(shape, jnp.float32)) == views


def test_every_frame_is_drawn_in_its_place():
    rng = np.random.default_rng(0)
    clip = browse.Strip("clip 0", 0, rng.random((2, 3, 6, 12, 3)))
    view = browse.Strip("view 0", 0, rng.random((2, 3, 8, 8, 3)))
    other = browse.Strip("clip 1", 1, rng.random((2, 3, 6, 12, 3)))
    figure = browse.draw_sheet(
        browse.Sheet("title", ["one", "two"], [clip, view, other], ["notes " * 99])
    )
    (axes,) = figure.axes
    width, height = figure.get_size_inches()
    middle, top = {}, {}
    for image in axes.images:
        (key,) = (
            (strip.label, row, number)
            for strip in (clip, view, other)
            for row, frames in enumerate(strip.frames)
            for number, frame in enumerate(frames)
            if np.array_equal(frame, image.get_array())
        )
        x0, x1, y1, y0 = image.get_extent()
        assert 0 < x0 < x1 < width and 0 < y0 < y1 < height
        np.testing.assert_allclose(
            (x1 - x0) / (y1 - y0), image.get_array().shape[1] / image.get_array().shape[0]
        )
        middle[key], top[key] = (x0 + x1) / 2, y0
    assert len(middle) == 2 * 3 * 3
    for row in range(2):
        for number in range(3):
            below, above = ("view 0", row, number), ("clip 0", row, number)
            np.testing.assert_allclose(middle[below], middle[above])
            assert top[below] - top[above] > browse.FRAME
            assert top["clip 1", row, number] == top[above]
    assert top["clip 0", 1, 0] - top["view 0", 0, 0] > browse.FRAME
    steps = np.diff([middle["clip 0", 0, number] for number in range(3)])
    assert 2 * browse.FRAME < steps.min() <= steps.max() < 2.2 * browse.FRAME
    assert middle["clip 1", 0, 0] - middle["clip 0", 0, 2] > 2 * browse.FRAME
    texts = {text.get_text().split()[0]: text.get_position()[1] for text in axes.texts}
    assert texts["title"] < texts["one"] < top["clip 0", 0, 0] < texts["two"] < top["clip 0", 1, 0]
    assert texts["notes"] > top["view 0", 1, 0] + browse.FRAME


def test_what_cannot_be_read_is_told(tmp_path):
    experiment, _ = small("synthetic_bod", augment={"jitter": 0.0})
    for name in ("falling down", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    write_clip(tmp_path / "train" / "falling down" / "good.mp4")
    (tmp_path / "train" / "b" / "bad.mp4").write_bytes(b"1234")
    experiment = dataclasses.replace(experiment, data=ClassFolders(str(tmp_path)))
    sheet, failures = browse.preview_views(experiment, "mine", 4, 0)
    assert sheet.captions == ["good.mp4    class: falling down"] * 4
    assert failures and all(line.startswith("b/bad.mp4 cannot be read") for line in failures)
    assert "mine" in sheet.title and "step 0, seed 5" in sheet.title
    assert any("Augment: size 8," in note for note in sheet.notes)
    with pytest.raises(ValueError, match="show must be at least 1, got 0"):
        browse.preview_views(experiment, "mine", 0, 0)


def test_what_training_refuses_is_refused():
    experiment, _ = small("synthetic_bod", augment={"flip": 0.5})
    with pytest.raises(ValueError, match="augment.flip is 0.5"):
        browse.preview_views(experiment, "mine", 4, 0)


def start(name, out, *flags):
    line = command(name, "unused", **COLOURLESS)
    line[line.index("vrl_jax.main")] = "vrl_jax.browse"
    return subprocess.run(
        [*line, f"--out={out}", *flags], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_command_writes_a_picture(tmp_path):
    out = tmp_path / "views.png"
    done = start("synthetic_simclr", out, "--show=2", "--step=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"views: {out}"
    with Image.open(out) as picture:
        assert picture.size[0] > 1000 and len(picture.getcolors(1 << 24)) > 1000
    assert not (ROOT / "unused").exists()
