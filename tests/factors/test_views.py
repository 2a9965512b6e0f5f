"""A report on sources with planted appearance and foregrounds."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.factors.factor_report import report_factors
from vrl_jax.factors.label_accuracy import FactorConfig
from vrl_jax.losses import koopman
from vrl_jax.probes.attentive_probe import AttentiveProbe
from vrl_jax.probes.linear_probe import LinearProbe

QUICK = FactorConfig(linear=LinearProbe(learning_rates=(0.1,), weight_decays=(0.001,), steps=100))


def planted(rng, videos, clips, spoilt=()):
    """Make a source, batches and masks: the centre's brightness is one label, the rim's another."""
    inner, outer, person = rng.permuted(np.arange(3 * videos).reshape(3, -1) % 3, axis=1)
    pixels = (
        np.zeros((videos, clips, 6, 8, 8, 3), np.uint8)
        + 20 * outer[:, None, None, None, None, None]
    )
    pixels[:, :, :, 2:6, 2:6] = 200 + 10 * inner[:, None, None, None, None, None]
    pixels = (pixels + rng.integers(0, 3, pixels.shape)).astype(np.uint8)
    masks = np.zeros_like(pixels)
    masks[:, :, :, 2:6, 2:6] = 255
    pixels[list(spoilt)] = 0
    classes = {"inner": ("a", "b", "c"), "outer": ("d", "e", "f"), "person": ("g", "h", "i")}
    labels = zip(*(part.tolist() for part in (inner, outer, person)), strict=True)
    rows = tuple(
        Video(str(number), VideoFile(""), dict(zip(classes, each, strict=True)))
        for number, each in enumerate(labels)
    )
    source = VideoList(rows, classes)

    def batches_of(arrays, failed=()):
        return [
            {
                "clips": arrays[part],
                "index": part,
                "failures": np.array(["no" if number in failed else "" for number in part]),
            }
            for part in np.split(np.arange(videos), range(4, videos, 4))
        ]

    return source, batches_of(pixels, spoilt), batches_of(masks)


def centre(clips):
    return clips[:, :, 2:6, 2:6].mean((1, 2, 3, 4), dtype=np.float32)[:, None]


def test_a_static_foreground_is_found_out_by_scufo(rng):
    train, train_batches, _ = planted(rng, 30, 2)
    test, test_batches, masks = planted(rng, 30, 2)
    mask_videos = VideoList(tuple(replace(v, id=f"mask {v.id}") for v in test.videos), test.classes)

    def batches(source):
        by_dataset = {id(train): train_batches, id(mask_videos): masks}
        return by_dataset.get(id(source), test_batches)  # stills are frames of the same videos

    report = report_factors(
        centre, batches, train, test, rows=4, config=QUICK, stamp={}, masks=mask_videos
    )
    values = {(r["name"], r["label"]): r["value"] for r in report.results}
    for name in ("order/ordered", "order/frozen", "scuba/scuba", "scuba/scufo"):
        assert values[name, "inner"] == 1
    assert values["scuba/contrasted", "inner"] == 0
    black = [{**batch, "clips": np.zeros_like(batch["clips"])} for batch in masks]
    masks[:] = black
    report = report_factors(
        centre, batches, train, test, rows=4, config=QUICK, stamp={}, masks=mask_videos
    )
    assert report.skipped["scuba"] == "no mask could be read"
    assert not [result for result in report.results if "scuba" in result["name"]]


def test_what_cannot_be_read_is_wrong(rng):
    train, train_batches, _ = planted(rng, 30, 1, spoilt=range(0, 30, 5))
    test, test_batches, _ = planted(rng, 24, 1, spoilt=range(0, 24, 4))

    def batches(source):
        return train_batches if source is train else test_batches

    report = report_factors(
        lambda clips: np.tile(centre(clips), (1, 2)),
        batches,
        train,
        test,
        rows=4,
        config=replace(QUICK, attentive=AttentiveProbe(steps=50)),
        stamp={},
        layers={"stage 0": 1},
        tokens={"stage 0": (1, 1, 1)},
    )
    values = {(r["name"], r["label"]): r["value"] for r in report.results}
    assert values["order/ordered", "inner"] == values["order/held", "inner"] == 0.75
    assert 0.5 < values["attentive/ordered", "inner"] <= 0.75
    assert values["arrow/forward-backward", "direction"] <= 0.75
    assert values["floor/appearance", "outer"] == 0.75
    assert np.isfinite(report.arrays["units/restyled/static"]).all()


def test_a_group_is_left_out_of_the_test_videos_alone(rng):
    test, test_batches, _ = planted(rng, 30, 1)
    config = replace(QUICK, group="person")

    def batches(source):
        assert source is test
        return test_batches

    report = report_factors(
        centre, batches, VideoList((), {}), test, rows=4, config=config, stamp={}
    )
    values = {(r["name"], r["label"]): r["value"] for r in report.results}
    assert values["order/ordered", "inner"] == 1 and ("order/ordered", "person") not in values


def test_spectra_are_those_of_each_clip_in_order(rng):
    clips, rows = 3, 5
    test, test_batches, _ = planted(rng, 11, clips, spoilt=(2,))
    vectors = rng.normal(size=(8 * 8 * 3, 4)).astype(np.float32)

    def frames(batch):
        return batch.reshape(*batch.shape[:2], -1).astype(np.float32) @ vectors

    config = replace(QUICK, group="person", radius=0.3)
    batch = np.concatenate([part["clips"] for part in test_batches])
    parts = np.split(np.arange(11), range(rows, 11, rows))
    fed = [{"clips": batch[p], "index": p, "failures": np.where(p == 2, "no", "")} for p in parts]

    def encode(clips):
        return np.concatenate([centre(clips), frames(clips).reshape(len(clips), -1)], axis=1)

    shape = frames(batch[:, 0]).shape[1:]
    report = report_factors(
        encode, lambda _: fed, test, test, rows=rows, config=config, stamp={}, frames=shape
    )
    readable = np.delete(batch, 2, axis=0)
    vectors_of_clips = frames(readable.reshape(-1, *readable.shape[2:]))
    matrices = jax.jit(lambda z: koopman.fit(z, ridge=1e-3).matrix)(vectors_of_clips)
    expected = np.linalg.eigvals(np.asarray(matrices, np.float64)).reshape(10, clips, -1)
    got = report.arrays["koopman/eigenvalues"]
    np.testing.assert_allclose(np.sort(np.abs(got)), np.sort(np.abs(expected)), atol=2e-3)
    values = {r["name"]: r["value"] for r in report.results if r["label"] == "clips"}
    assert values["koopman/static"] == pytest.approx(np.mean(abs(expected - 1) <= 0.3), abs=0.02)
    assert report.arrays["koopman/residuals"].shape == (10, clips)
    assert values["koopman/residual"] == pytest.approx(report.arrays["koopman/residuals"].mean())
