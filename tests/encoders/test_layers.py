import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.encoders.reference import convolve, fill, greatest, normalise
from vrl_jax.encoders.layers import (
    FORMULATIONS,
    Conv3d,
    ConvNorm,
    batch_norm,
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
def test_all_formulations_equal_loops_and_have_the_same_gradients(rng, shape, kernel, strides):
    x = rng.normal(size=shape).astype(np.float32)
    weights = rng.normal(size=(*kernel, shape[-1], 4)).astype(np.float32)
    expected = convolve(x, weights, strides)
    slopes = {}
    for formulation in FORMULATIONS:
        conv = Conv3d(4, kernel, strides, formulation)

        def cube(w, x, conv=conv):
            y = conv.apply({"params": {"kernel": w}}, x)
            return (y**3).mean(), y

        gradient = jax.jit(jax.grad(cube, argnums=(0, 1), has_aux=True))
        slopes[formulation], got = gradient(weights, x)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    for formulation in FORMULATIONS:
        for expected, got in zip(slopes["native"], slopes[formulation], strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * scale)


def test_auto_depends_on_platform_and_dtype():
    selected = {
        (platform, dtype): default_formulation(platform, dtype)
        for platform in ("cpu", "gpu", "tpu")
        for dtype in ("float32", "bfloat16")
    }
    assert set(selected) - {k for k, v in selected.items() if v == "native"} == {
        ("cpu", "float32"),
        ("cpu", "bfloat16"),
        ("gpu", "bfloat16"),
    }
    assert selected["gpu", "bfloat16"] == "planar" and selected["cpu", "float32"] == "per_tap"


def test_auto_is_per_tap_on_cpu():
    x = jnp.ones((1, 4, 4, 4, 2))

    def trace(formulation):
        conv = Conv3d(2, (3, 3, 3), (1, 1, 1), formulation)
        return str(jax.make_jaxpr(lambda x: conv.init(jax.random.key(3), x))(x))

    assert trace("auto") == trace("per_tap") != trace("native") == trace("planar")


@pytest.mark.parametrize(
    ("kernel", "strides", "axes"),
    [
        ((1, 3, 3), (1, 2, 1), 4),
        ((3, 1, 1), (2, 1, 1), 4),
        ((1, 1, 1), (1, 1, 1), 4),
        ((1, 1, 1), (2, 2, 2), 4),
        ((3, 3, 3), (1, 2, 1), 5),
    ],
)
def test_planar_convolutions_have_two_dimensions(kernel, strides, axes):
    x, weights = jnp.ones((2, 4, 5, 6, 3)), jnp.ones((*kernel, 3, 4))
    jaxpr = jax.make_jaxpr(lambda x, w: FORMULATIONS["planar"](x, w, strides))(x, weights)
    names = [step.primitive.name for step in jaxpr.eqns]
    assert names.count("conv_general_dilated") == 1 and "dot_general" not in names
    (convolution,) = (step for step in jaxpr.eqns if step.primitive.name.startswith("conv"))
    assert convolution.outvars[0].aval.ndim == axes


def test_kernel_is_he_normal_by_fan_out():
    clip = np.ones((1, 3, 3, 3, 32), np.float32)
    variables = jax.jit(Conv3d(64, (3, 3, 3)).init)(jax.random.key(3), clip)
    kernel = np.asarray(variables["params"]["kernel"])
    assert kernel.shape == (3, 3, 3, 32, 64)
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (27 * 64)), rel=0.02)
    assert np.abs(kernel).max() / kernel.std() > 3.5  # a normal, not a truncated one


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
    got = jax.jit(conv.apply, static_argnums=2)(variables, x, False)
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-4)


def test_training_normalises_by_the_batch_and_updates_running_statistics(rng):
    conv = ConvNorm(4, (1, 1, 1))
    x = rng.normal(size=(3, 4, 5, 2, 3)).astype(np.float32)
    variables = fill(conv, x.shape, rng)
    params, old = variables["params"], variables["batch_stats"]["norm"]
    train = jax.jit(lambda v, x: conv.apply(v, x, True, mutable=["batch_stats"]))
    y, updated = jax.device_get(train(variables, x))
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
def test_both_max_pools_equal_loops_and_have_the_same_gradients(rng, window, strides):
    x = -rng.uniform(1, 2, size=(2, 4, 5, 7, 3)).astype(np.float32)  # zeros would show as padding
    pads = tuple((k - 1) // 2 for k in window)
    expected = greatest(x, window, strides, pads, pads)
    slopes = []
    for formulation in ("native", "per_tap"):

        def cube(x, formulation=formulation):
            y = max_pool(x, window, strides, formulation)
            return (y**3).sum(), y

        slope, got = jax.jit(jax.grad(cube, has_aux=True))(x)
        np.testing.assert_array_equal(got, expected)
        slopes.append(slope)
    np.testing.assert_allclose(*slopes, rtol=1e-5)


def test_pool_averages_the_last_map_in_float32(rng):
    maps = [rng.normal(size=(2, 3, n, 5, n)).astype(jnp.bfloat16) for n in (6, 4)]
    features = jax.jit(pool_features)(maps)
    last = np.asarray(maps[-1], np.float64)
    np.testing.assert_allclose(features.frames, last.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features.clip, last.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    assert features.clip.dtype == features.frames.dtype == jnp.float32
    assert [stage.shape for stage in features.stages] == [(2, 3, 6, 5, 6), (2, 3, 4, 5, 4)]


@pytest.mark.parametrize("height, width, cells", [(4, 6, 2), (7, 5, 2), (4, 4, 4), (3, 5, 1)])
def test_frame_grid_averages_each_region(rng, height, width, cells):
    stage = rng.normal(size=(2, 3, height, width, 5)).astype(np.float32)
    got = jax.jit(lambda stage: pool_to_grid(pool_features([stage]), cells))(stage)
    got = np.reshape(got, (2, 3, cells, cells, 5))
    for i in range(cells):
        rows = slice(i * height // cells, -(-(i + 1) * height // cells))
        for j in range(cells):
            columns = slice(j * width // cells, -(-(j + 1) * width // cells))
            expected = stage[:, :, rows, columns].mean((2, 3))
            np.testing.assert_allclose(got[:, :, i, j], expected, atol=1e-6)


def test_frame_grid_refuses_more_cells_than_the_map_has(rng):
    features = pool_features([jnp.zeros((1, 2, 3, 4, 5))])
    with pytest.raises(ValueError, match="grid must be at most 3, the shorter side.*got 4"):
        pool_to_grid(features, 4)


@pytest.mark.parametrize("two_pass", [False, True])
def test_two_passes_keep_the_digits_that_one_pass_loses(rng, two_pass):
    x = (1000 + rng.normal(size=(2, 4, 4, 4, 3))).astype(np.float32)
    norm = batch_norm(True, "float32", None, two_pass=two_pass)
    variables = {"params": {"scale": np.ones(3, "f"), "bias": np.zeros(3, "f")}}
    stats = {"mean": np.zeros(3, "f"), "var": np.ones(3, "f")}
    apply = jax.jit(lambda x: norm.apply({**variables, "batch_stats": stats}, x, mutable=True)[0])
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((0, 1, 2, 3))) / exact.std((0, 1, 2, 3))
    error = np.abs(np.asarray(apply(x)) - exact).max()
    assert (error < 2e-3) == two_pass and (error > 0.01) != two_pass
