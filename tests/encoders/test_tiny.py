import jax
import numpy as np
import pytest

from tests.encoders.reference import convolve, count, fill, normalise, shapes_of
from vrl_jax.encoders.tiny import Tiny


def test_default_keeps_frames_and_divides_sides_by_eight():
    features, variables = shapes_of(Tiny().module(), (2, 16, 32, 32, 3))
    maps = [(2, 16, 8, 8, 16), (2, 16, 4, 4, 32), (2, 16, 4, 4, 64)]
    assert [stage.shape for stage in features.stages] == maps
    assert features.frames.shape == (2, 16, 64)
    assert Tiny().dim == 64
    expected = 3 * 75 * 16 + (9 * 16 + 3 * 32) * 32 + (9 * 32 + 3 * 64) * 64
    assert count(variables["params"]) == expected + 2 * 16 + 4 * (32 + 64)


def test_equals_loops(rng):
    module, shape = Tiny(widths=(3, 4), strides=(2, 3)).module(), (1, 4, 7, 9, 3)
    x = rng.normal(size=shape).astype(np.float32)
    variables = fill(module, shape, rng)
    params, stats = variables["params"]["stem"], variables["batch_stats"]["stem"]
    y = convolve(x, params["conv"]["kernel"], (1, 2, 2))
    y = np.maximum(normalise(y, params["norm"], stats["norm"]), 0)
    params, stats = variables["params"]["stage1"], variables["batch_stats"]["stage1"]
    y = convolve(y, params["spatial"]["kernel"], (1, 3, 3))
    y = np.maximum(normalise(y, params["middle"], stats["middle"]), 0)
    y = convolve(y, params["temporal"]["kernel"], (1, 1, 1))
    y = np.maximum(normalise(y, params["norm"], stats["norm"]), 0)
    features = jax.jit(module.apply, static_argnums=2)(variables, x, False)
    np.testing.assert_allclose(features.stages[-1], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.clip, y.mean((1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_shift_in_time_shifts_the_frames(rng):
    module, shape = Tiny(widths=(4, 6, 8)).module(), (2, 12, 16, 16, 3)
    long = rng.normal(size=(2, 13, 16, 16, 3)).astype(np.float32)
    variables = fill(module, shape, rng)
    encode = jax.jit(lambda v, x: module.apply(v, x, False).frames)
    early, late = (np.asarray(encode(variables, x)) for x in (long[:, :12], long[:, 1:]))
    inside = slice(3, 8)  # three temporal convolutions see three frames to either side
    np.testing.assert_allclose(early[:, 4:9], late[:, inside], rtol=1e-4, atol=1e-5)
    assert np.abs(early[:, 1:4] - late[:, 0:3]).max() > 1e-3  # beyond, they see the padding
    assert np.abs(early[:, 4:9] - early[:, inside]).max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": ()}, "widths"),
        ({"widths": (8, 0, 8)}, "widths"),
        ({"strides": (2, 0, 2)}, "strides"),
        ({"strides": (2, 2)}, "one for each width"),
        ({"dtype": "float16"}, "dtype"),
        ({"conv": "fft"}, "conv"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        Tiny(**wrong)
