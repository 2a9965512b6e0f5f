import functools

import jax
import numpy as np
import pytest

from tests.encoders.reference import convolve, count, fill, normalise, shapes_of
from vrl_jax.encoders import r3d
from vrl_jax.encoders.layers import ConvNorm
from vrl_jax.encoders.r3d import R3D, Residual

CLIPS = (2, 16, 112, 112, 3)


@functools.cache
def shapes(**options):
    return shapes_of(R3D(conv="native", **options).module(), CLIPS)


def parameters_by_stage(params):
    names = ("stem", "stages_0", "stages_1", "stages_2", "stages_3")
    return [count([t for key, t in params.items() if key.startswith(name)]) for name in names]


def test_parameters_of_r3d_18():
    params = shapes(temporal_stride=2)[1]["params"]
    assert parameters_by_stage(params) == [28_352, 442_880, 1_557_760, 6_228_480, 24_908_800]
    assert count(params) == 33_166_272


def test_parameters_of_the_10_layer_network():
    params = shapes(blocks=(1, 1, 1, 1))[1]["params"]
    assert count(params) == 14_361_792


@pytest.mark.parametrize(("temporal_stride", "frames"), [(2, (16, 16, 8, 4, 2)), (1, (16,) * 5)])
def test_maps(temporal_stride, frames):
    features, _ = shapes(temporal_stride=temporal_stride)
    sides, widths = (56, 56, 28, 14, 7), (64, 64, 128, 256, 512)
    expected = [(2, t, s, s, d) for t, s, d in zip(frames, sides, widths, strict=True)]
    assert [stage.shape for stage in features.stages] == expected
    assert features.frames.shape == (2, frames[-1], R3D().dim)
    assert features.clip.shape == (2, R3D().dim)


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_residual_equals_loops(rng, strides):
    plain = strides == (1, 1, 1)
    shortcut = None if plain else ConvNorm(4, (1, 1, 1), strides)
    block = Residual(ConvNorm(4, (3, 3, 3), strides), ConvNorm(4, (3, 3, 3)), shortcut)
    x = rng.normal(size=(1, 4, 5, 4, 4)).astype(np.float32)
    variables = fill(block, x.shape, rng)

    def apply(name, x, strides):
        params, stats = variables["params"][name], variables["batch_stats"][name]
        y = convolve(x, params["conv"]["kernel"], strides)
        return normalise(y, params["norm"], stats["norm"])

    y = apply("second", np.maximum(apply("first", x, strides), 0), (1, 1, 1))
    y = np.maximum(y + (x if plain else apply("shortcut", x, strides)), 0)
    got = jax.jit(block.apply, static_argnums=2)(variables, x, False)
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-4)


def test_planar_is_native():
    """Its shortcuts are flat, but all else is not."""
    x = np.zeros((1, 4, 16, 16, 3), np.float32)
    traces = {
        conv: str(
            jax.make_jaxpr(lambda x, net=net: net.init_with_output(jax.random.key(0), x, True))(x)
        )
        for conv in ("native", "planar")
        for net in [R3D(blocks=(1, 1, 1, 1), conv=conv).module()]
    }
    assert traces["planar"] == traces["native"]


def test_formulations_agree(rng, monkeypatch):
    monkeypatch.setattr(r3d, "WIDTHS", (4, 5, 6, 8))
    shape = (1, 3, 12, 8, 3)
    x = rng.normal(size=shape).astype(np.float32)
    variables = fill(R3D(blocks=(1, 1, 1, 1)).module(), shape, rng)
    native, per_tap = (
        jax.jit(R3D(blocks=(1, 1, 1, 1), conv=conv).module().apply, static_argnums=2)(
            variables, x, False
        )
        for conv in ("native", "per_tap")
    )
    np.testing.assert_allclose(native.clip, per_tap.clip, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": (2, 2, 2)}, "blocks"),
        ({"blocks": (2, 0, 2, 2)}, "blocks"),
        ({"temporal_stride": 3}, "temporal_stride"),
        ({"dtype": "float64"}, "dtype"),
        ({"conv": "fft"}, "conv"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        R3D(**wrong)
