import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.encoders.reference import count, fill, shapes_of
from vrl_jax.encoders.attention import cut_tubelets
from vrl_jax.encoders.vit import ViT, sincos_positions

CLIPS = (1, 16, 224, 224, 3)
SMALL = ViT(width=14, depth=4, heads=2, patch=4)


def affine(x, params):
    return x @ params["kernel"].reshape(x.shape[-1], -1) + params.get("bias", 0.0)


def standardise(x, params):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * params["scale"] + params["bias"]


def attend(x, params, heads):
    """Mix the values of one clip's tokens, one head and one query at a time."""
    q, k, v = (affine(x, params[name]) for name in ("query", "key", "value"))
    out, size = np.zeros_like(q), q.shape[-1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for n in range(len(x)):
            logits = np.array([q[n, part] @ key / math.sqrt(size) for key in k[:, part]])
            weights = np.exp(logits - logits.max())
            out[n, part] = weights @ v[:, part] / weights.sum()
    return affine(out, params["out"])


def block(x, params, heads):
    x = x + attend(standardise(x, params["attention_norm"]), params, heads)
    y = affine(standardise(x, params["perceptron_norm"]), params["expand"])
    y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
    return x + affine(y, params["contract"])


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (ViT(width=192, heads=3), 5_631_552),
        (ViT(width=384, heads=6), 21_879_936),
        (ViT(), 86_227_200),
        (ViT(width=1024, depth=24, heads=16), 303_860_736),
    ],
    ids=str,
)
def test_parameters_and_maps(config, total):
    features, variables = shapes_of(config.module(), CLIPS)
    assert set(variables) == {"params"}
    assert count(variables["params"]) == total
    assert [stage.shape for stage in features.stages] == [(1, 8, 14, 14, config.width)] * 4
    assert features.frames.shape == (1, 8, config.dim)
    assert features.clip.shape == (1, config.dim)


@pytest.mark.parametrize(("temporal_stride", "frames"), [(1, 12), (2, 6), (4, 3)])
def test_a_tubelet_of_one_frame_keeps_every_frame(temporal_stride, frames):
    module = ViT(width=12, depth=4, heads=2, temporal_stride=temporal_stride, patch=8).module()
    features, _ = shapes_of(module, (2, 12, 16, 24, 3))
    assert features.stages[-1].shape == (2, frames, 2, 3, 12)


def test_tubelets_embed_as_loops_do(rng):
    x = rng.normal(size=(2, 4, 6, 9, 2)).astype(np.float32)
    kernel = rng.normal(size=(2, 3, 3, 2, 5)).astype(np.float32)
    expected = np.zeros((2, 2, 2, 3, 5))
    for b, t, row, column in np.ndindex(expected.shape[:4]):
        for i, j, k in np.ndindex(kernel.shape[:3]):
            voxel = x[b, 2 * t + i, 3 * row + j, 3 * column + k]
            expected[b, t, row, column] += voxel @ kernel[i, j, k]
    got = cut_tubelets(jnp.asarray(x), 2, 3) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("grid", "width"), [((3, 2, 4), 12), ((2, 3, 5), 23), ((2, 2, 2), 4)])
def test_positions_equal_loops(grid, width):
    expected, count = np.zeros((*grid, width)), width // 6
    for position in np.ndindex(grid):
        for axis, coordinate in enumerate(position):
            for i in range(count):
                angle = coordinate * 10000 ** (-i / count)
                expected[position][axis * 2 * count + i] = math.sin(angle)
                expected[position][axis * 2 * count + count + i] = math.cos(angle)
    np.testing.assert_allclose(sincos_positions(grid, width), expected, atol=1e-12)


def test_network_equals_loops(rng):
    config, shape = ViT(width=14, depth=8, heads=2, patch=4), (2, 4, 8, 12, 3)
    module, grid = config.module(), (2, 2, 2, 3, 14)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(config.module(), shape, rng)
    params = variables["params"]
    y = affine(np.asarray(cut_tubelets(jnp.asarray(x), 2, 4), np.float64), params["embed"])
    y, maps = (y + sincos_positions(grid[1:4], 14)).reshape(2, -1, 14), []
    for number in range(8):
        y = np.stack([block(tokens, params[f"block{number}"], heads=2) for tokens in y])
        if number % 2:
            maps.append(y.reshape(grid))
    maps[-1] = standardise(maps[-1], params["norm"])
    features = jax.jit(lambda v, x: module.apply(v, x, False))(variables, x)
    for got, expected in zip(features.stages, maps, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features.frames, maps[-1].mean((2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features.clip, maps[-1].mean((1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_other_clip_sizes_take_the_same_weights(rng):
    module = SMALL.module()
    variables = fill(module, (1, 4, 8, 12, 3), rng)
    long = jnp.zeros((1, 6, 12, 8, 3))
    features = jax.eval_shape(lambda: module.apply(variables, long, False))
    assert features.stages[-1].shape == (1, 3, 3, 2, 14)


@pytest.mark.parametrize("shape", [(1, 5, 8, 8, 3), (1, 4, 6, 8, 3), (1, 4, 8, 10, 3)])
def test_clips_that_tubelets_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="clips must be divisible into tubelets of 2 x 4 x 4, got"):
        shapes_of(SMALL.module(), shape)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 100}, "width must be a multiple of heads 12, got 100"),
        ({"depth": 10}, "depth must be a multiple of 4, got 10"),
        ({"heads": 0}, "heads"),
        ({"temporal_stride": 0}, "temporal_stride"),
        ({"patch": 0}, "patch"),
        ({"dtype": "float64"}, "dtype"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViT(**wrong)
