from functools import partial

import jax
import numpy as np
import pytest

from tests.encoders.reference import convolve, count, fill, greatest, normalise, shapes_of
from vrl_jax.encoders import s3d
from vrl_jax.encoders.layers import ConvNorm
from vrl_jax.encoders.s3d import S3D, Inception

CLIPS = (1, 16, 224, 224, 3)
ONCE, HALF = (1, 1, 1), (2, 2, 2)


def convolved(x, params, stats, strides=ONCE):
    if "conv" in params:
        x = convolve(x, params["conv"]["kernel"], strides)
    else:
        x = convolve(x, params["spatial"]["kernel"], (1, *strides[1:]))
        x = np.maximum(normalise(x, params["middle"], stats["middle"], 1e-3), 0)
        x = convolve(x, params["temporal"]["kernel"], (strides[0], 1, 1))
    return np.maximum(normalise(x, params["norm"], stats["norm"], 1e-3), 0)


def gated(x, params):
    out = np.zeros_like(x)
    for b, clip in enumerate(x):
        mean = np.mean([clip[position] for position in np.ndindex(clip.shape[:3])], axis=0)
        logits = mean @ params["dense"]["kernel"] + params["dense"]["bias"]
        for c, logit in enumerate(logits):
            out[b, ..., c] = clip[..., c] / (1 + np.exp(-logit))
    return out


def inception(x, params, stats):
    def unit(x, name):
        return convolved(x, params[name], stats[name])

    branches = {
        "first": unit(x, "first"),
        "second": unit(unit(x, "second_reduce"), "second"),
        "third": unit(unit(x, "third_reduce"), "third"),
        "fourth": unit(greatest(x, (3, 3, 3), ONCE, ONCE, ONCE), "fourth"),
    }
    if "first_gate" in params:
        branches = {name: gated(y, params[f"{name}_gate"]) for name, y in branches.items()}
    return np.concatenate(list(branches.values()), axis=-1)


def test_parameters_and_maps_of_s3d():
    features, variables = shapes_of(S3D(conv="native").module(), CLIPS)
    assert count(variables["params"]) == 7_910_048
    assert [stage.shape[1:] for stage in features.stages] == [
        (8, 112, 112, 64),
        (8, 56, 56, 192),
        (8, 28, 28, 480),
        (4, 14, 14, 832),
        (2, 7, 7, 1024),
    ]
    assert features.frames.shape == (1, 2, 1024)
    assert features.clip.shape == (1, S3D().dim)


def test_s3d_g_without_temporal_stride_and_odd_sides_that_are_rounded_down():
    config = S3D(gated=True, temporal_stride=1, conv="native")
    features, variables = shapes_of(config.module(), (1, 5, 112, 112, 3))
    assert count(variables["params"]) == 9_098_000
    sizes = [(56, 64), (28, 192), (14, 480), (7, 832), (3, 1024)]
    assert [stage.shape[1:] for stage in features.stages] == [(5, s, s, c) for s, c in sizes]


@pytest.mark.parametrize("gates", [False, True])
def test_inception_equals_loops(rng, gates):
    conv = partial(ConvNorm, epsilon=1e-3)
    block = Inception(conv, (2, 3, 4, 2, 3, 1), gates, "auto", "float32")
    shape = (2, 3, 4, 5, 3)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(block, shape, rng)
    expected = inception(x, variables["params"], variables["batch_stats"])
    assert expected.shape == (2, 3, 4, 5, 2 + 4 + 3 + 1)
    got = jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_network_equals_loops_with_narrow_blocks(rng, monkeypatch):
    stages = (((2, 3, 4, 2, 3, 1), (1, 2, 3, 1, 2, 2)), ((1, 2, 2, 3, 2, 3),), ())
    monkeypatch.setattr(s3d, "STAGES", stages)
    module, shape = S3D().module(), (1, 7, 34, 17, 3)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(module, shape, rng)
    params, stats = variables["params"], variables["batch_stats"]

    def unit(x, name, strides=ONCE):
        return convolved(x, params[name], stats[name], strides)

    def block(x, name):
        return inception(x, params[name], stats[name])

    def halved(x):
        return greatest(x, (1, 3, 3), (1, 2, 2), (0, 1, 1), (0, 1, 1))

    maps = [unit(x, "conv1", HALF)]
    maps.append(unit(unit(halved(maps[0]), "conv2_reduce"), "conv2"))
    maps.append(block(block(halved(maps[1]), "block3b"), "block3c"))
    maps.append(block(greatest(maps[2], (3, 3, 3), HALF, ONCE, ONCE), "block4b"))
    maps.append(greatest(maps[3], HALF, HALF, (0, 0, 0), (0, 0, 0)))
    features = jax.jit(lambda v, x: module.apply(v, x, False))(variables, x)
    for got, expected in zip(features.stages, maps, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_running_statistics_follow_a_thousandth_of_the_batch(rng, monkeypatch):
    monkeypatch.setattr(s3d, "STAGES", ((), (), ()))
    module, shape = S3D().module(), (2, 8, 17, 20, 3)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(module, shape, rng)
    train = jax.jit(lambda v, x: module.apply(v, x, True, mutable=["batch_stats"]))
    updated = train(variables, x)[1]
    y = convolve(x, variables["params"]["conv1"]["spatial"]["kernel"], (1, 2, 2))
    old, new = (v["batch_stats"]["conv1"]["middle"] for v in (variables, updated))
    expected = 0.999 * old["mean"] + 0.001 * y.mean((0, 1, 2, 3))
    np.testing.assert_allclose(new["mean"], expected, rtol=1e-5, atol=1e-6)
    expected = 0.999 * old["var"] + 0.001 * y.var((0, 1, 2, 3))
    np.testing.assert_allclose(new["var"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temporal_stride": 3}, "temporal_stride"),
        ({"dtype": "float64"}, "dtype"),
        ({"conv": "fft"}, "conv"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        S3D(**wrong)


@pytest.mark.parametrize(
    "shape, size", [((1, 5, 17, 16, 3), "2 x 2 x 1"), ((1, 4, 17, 17, 3), "1 x 2 x 2")]
)
def test_clips_of_which_nothing_is_left_are_refused(monkeypatch, shape, size):
    monkeypatch.setattr(s3d, "STAGES", ((), (), ()))
    with pytest.raises(ValueError, match=f"too small: max pooling .* a larger map, got {size}"):
        shapes_of(S3D().module(), shape)
    shapes_of(S3D().module(), (1, 5, 17, 17, 3))
