import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.encoders.reference import convolve, fill, greatest, normalise
from vrl_jax.encoders.layers import (
    Conv3d,
    ConvNorm,
    default_formulation,
    max_pool,
    pool_features,
    pool_to_grid,
)

CASES = [  # x, kernel, strides; odd sizes, so that strides leave a remainder
    ((2, 5, 6, 7, 3), (3, 3, 3), (1, 1, 1)),
    ((2, 6, 7, 6, 2), (3, 3, 3), (2, 2, 2)),
    ((1, 4, 9, 8, 3), (3, 7, 7), (1, 2, 2)),
    ((2, 3, 7, 5, 3), (1, 5, 3), (1, 2, 1)),
    ((2, 6, 5, 7, 5), (3, 3, 3), (2, 1, 2)),  # more channels in than out
    ((2, 7, 4, 3, 4), (3, 1, 1), (2, 1, 1)),
    ((2, 6, 3, 3, 4), (5, 1, 1), (1, 1, 1)),
    ((2, 5, 5, 6, 3), (1, 1, 1), (2, 2, 2)),
    ((2, 6, 5, 4, 5), (3, 3, 3), (1, 1, 2)),  # pairs of frames
    ((1, 4, 7, 5, 5), (3, 3, 1), (1, 2, 1)),
    ((1, 3, 8, 5, 128), (1, 3, 3), (2, 1, 1)),  # pairs of rows
    ((2, 2, 10, 3, 130), (1, 3, 1), (1, 1, 1)),
    ((2, 3, 2, 2, 5), (3, 3, 3), (1, 1, 1)),  # a map smaller than the kernel
    ((2, 2, 4, 3, 3), (1, 3, 5), (1, 2, 2)),
]


@pytest.mark.parametrize(("shape", "kernel", "strides"), CASES)
@pytest.mark.parametrize("formulation", ["native", "folded"])
def test_equals_loops(rng, shape, kernel, strides, formulation):
    x = rng.normal(size=shape).astype(np.float32)
    weights = rng.normal(size=(*kernel, shape[-1], 4)).astype(np.float32)
    conv = Conv3d(4, kernel, strides, formulation)
    got = conv.apply({"params": {"kernel": weights}}, jnp.asarray(x))
    np.testing.assert_allclose(got, convolve(x, weights, strides), rtol=1e-4, atol=1e-4)


def test_auto_is_what_its_platform_gets():
    assert [default_formulation(name) for name in ("cpu", "gpu", "tpu")] == [
        "folded",
        "native",
        "native",
    ]


@pytest.mark.parametrize(("shape", "kernel", "strides"), CASES)
def test_gradients_of_native_and_folded_agree(rng, shape, kernel, strides):
    x = rng.normal(size=shape).astype(np.float32)
    weights = rng.normal(size=(*kernel, shape[-1], 4)).astype(np.float32)

    def gradients(formulation):
        conv = Conv3d(4, kernel, strides, formulation)
        cube = lambda w, x: (conv.apply({"params": {"kernel": w}}, x) ** 3).mean()  # noqa: E731
        return jax.jit(jax.grad(cube, argnums=(0, 1)))(weights, x)

    for native, folded in zip(gradients("native"), gradients("folded"), strict=True):
        np.testing.assert_allclose(native, folded, rtol=1e-4, atol=1e-5 * np.abs(native).max())


def test_auto_is_folded_on_cpu():
    x = jnp.ones((1, 4, 4, 4, 2))

    def trace(formulation):
        conv = Conv3d(2, (3, 3, 3), (1, 1, 1), formulation)
        return str(jax.make_jaxpr(lambda x: conv.init(jax.random.key(3), x))(x))

    assert trace("auto") == trace("folded") != trace("native")


def test_kernel_is_he_normal_by_fan_out():
    variables = Conv3d(64, (3, 3, 3)).init(jax.random.key(3), jnp.ones((1, 3, 3, 3, 32)))
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 3, 32, 64)
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (27 * 64)), rel=0.02)
    assert float(jnp.abs(kernel).max() / kernel.std()) > 3.5  # a normal, not a truncated one


@pytest.mark.parametrize("mid", [0, 5])
def test_conv_norm_equals_loops(rng, mid):
    shape, kernel, strides = (2, 6, 7, 5, 3), (3, 5, 3), (2, 2, 1)
    conv = ConvNorm(4, kernel, strides, mid=mid)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(conv, shape, rng)
    params, stats = variables["params"], variables["batch_stats"]
    if mid:
        y = convolve(x, params["spatial"]["kernel"], (1, 2, 1))
        y = np.maximum(normalise(y, params["middle"], stats["middle"]), 0)
        y = convolve(y, params["temporal"]["kernel"], (2, 1, 1))
    else:
        y = convolve(x, params["conv"]["kernel"], strides)
    y = normalise(y, params["norm"], stats["norm"])
    np.testing.assert_allclose(
        conv.apply(variables, jnp.asarray(x), False), y, rtol=1e-4, atol=1e-4
    )


def test_training_normalises_by_the_batch_and_updates_running_statistics(rng):
    conv = ConvNorm(4, (1, 1, 1))
    x = rng.normal(size=(3, 4, 5, 2, 3)).astype(np.float32)
    variables = fill(conv, x.shape, rng)
    params, old = variables["params"], variables["batch_stats"]["norm"]
    y, updated = conv.apply(variables, jnp.asarray(x), True, mutable=["batch_stats"])
    z = convolve(x, params["conv"]["kernel"], (1, 1, 1)).reshape(-1, 4)
    stats = {"mean": z.mean(0), "var": z.var(0)}
    expected = normalise(z, params["norm"], stats).reshape(y.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    for name, new in updated["batch_stats"]["norm"].items():
        np.testing.assert_allclose(new, 0.9 * old[name] + 0.1 * stats[name], rtol=1e-4, atol=1e-5)


POOLS = [
    ((1, 3, 3), (1, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
    ((3, 3, 3), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2)),
]


@pytest.mark.parametrize(("window", "strides"), POOLS)
@pytest.mark.parametrize("formulation", ["native", "folded"])
def test_max_pool_equals_loops(rng, window, strides, formulation):
    x = -rng.uniform(1, 2, size=(2, 4, 5, 7, 3)).astype(np.float32)  # zeros would show as padding
    pads = tuple((k - 1) // 2 for k in window)
    got = max_pool(jnp.asarray(x), window, strides, formulation)
    np.testing.assert_array_equal(got, greatest(x, window, strides, pads, pads))


@pytest.mark.parametrize(("window", "strides"), POOLS)
def test_gradients_of_max_pools_agree(rng, window, strides):
    x = rng.normal(size=(2, 4, 5, 7, 3)).astype(np.float32)

    def gradient(formulation):
        return jax.grad(lambda x: (max_pool(x, window, strides, formulation) ** 3).sum())(x)

    np.testing.assert_allclose(gradient("native"), gradient("folded"), rtol=1e-5)


def test_pool_averages_the_last_map_in_float32(rng):
    maps = [jnp.asarray(rng.normal(size=(2, 3, n, 5, n)), jnp.bfloat16) for n in (6, 4)]
    features = pool_features(maps)
    last = np.asarray(maps[-1], np.float64)
    np.testing.assert_allclose(features.frames, last.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features.clip, last.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    assert features.clip.dtype == features.frames.dtype == jnp.float32
    assert [stage.shape for stage in features.stages] == [(2, 3, 6, 5, 6), (2, 3, 4, 5, 4)]


@pytest.mark.parametrize("height, width, cells", [(4, 6, 2), (7, 5, 2), (4, 4, 4), (3, 5, 1)])
def test_frame_grid_averages_each_region(rng, height, width, cells):
    stage = jnp.array(rng.normal(size=(2, 3, height, width, 5)), jnp.float32)
    got = pool_to_grid(pool_features([stage]), cells).reshape(2, 3, cells, cells, 5)
    for i in range(cells):
        rows = slice(i * height // cells, -(-(i + 1) * height // cells))
        for j in range(cells):
            columns = slice(j * width // cells, -(-(j + 1) * width // cells))
            expected = np.asarray(stage)[:, :, rows, columns].mean((2, 3))
            np.testing.assert_allclose(got[:, :, i, j], expected, atol=1e-6)


def test_frame_grid_refuses_more_cells_than_the_map_has(rng):
    features = pool_features([jnp.zeros((1, 2, 3, 4, 5))])
    with pytest.raises(ValueError, match="grid must be at most 3, the shorter side.*got 4"):
        pool_to_grid(features, 4)
