import jax
import numpy as np
import pytest

from tests.encoders.reference import convolve, count, fill, greatest, normalise, shapes_of
from vrl_jax.encoders import c3d
from vrl_jax.encoders.c3d import C3D

CLIPS = (1, 16, 112, 112, 3)


def test_parameters_of_c3d():
    params = shapes_of(C3D(conv="native").module(), CLIPS)[1]["params"]
    assert count(params) == 27_661_440
    convolutions = [part for name, part in params.items() if not name.endswith("norm")]
    assert count(convolutions) == 27_655_936  # published without batch normalisation


@pytest.mark.parametrize(("temporal_stride", "frames"), [(2, (16, 8, 4, 2, 2)), (1, (16,) * 5)])
def test_maps(temporal_stride, frames):
    config = C3D(temporal_stride=temporal_stride, conv="native")
    features, _ = shapes_of(config.module(), CLIPS)
    sides, widths = (56, 28, 14, 7, 7), (64, 128, 256, 512, 512)
    expected = [(1, t, s, s, d) for t, s, d in zip(frames, sides, widths, strict=True)]
    assert [stage.shape for stage in features.stages] == expected
    assert features.frames.shape == (1, frames[-1], config.dim)


@pytest.mark.parametrize("temporal_stride", [1, 2])
def test_equals_loops_with_narrow_layers(rng, monkeypatch, temporal_stride):
    monkeypatch.setattr(c3d, "WIDTHS", ((3,), (2,), (3, 2), (4, 3), (2, 5)))
    module, shape = C3D(temporal_stride=temporal_stride).module(), (2, 5, 9, 13, 3)
    x, variables = rng.normal(size=shape).astype(np.float32), fill(module, shape, rng)
    params, stats, y, maps = variables["params"], variables["batch_stats"], x, []
    for stage, names in enumerate(("1a", "2a", "3a 3b", "4a 4b", "5a 5b"), start=1):
        for name in names.split():
            conv, norm = params[f"conv{name}"], f"conv{name}_norm"
            y = convolve(y, conv["kernel"], (1, 1, 1)) + conv["bias"]
            y = np.maximum(normalise(y, params[norm], stats[norm]), 0)
        if stage < 5:
            window = (1 if stage == 1 else temporal_stride, 2, 2)
            rest = [-n % k for n, k in zip(y.shape[1:4], window, strict=True)]
            y = greatest(y, window, window, (0, 0, 0), rest)
        maps.append(y)
    features = jax.jit(lambda v, x: module.apply(v, x, False))(variables, x)
    for got, expected in zip(features.stages, maps, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features.clip, maps[-1].mean((1, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temporal_stride": 0}, "temporal_stride"),
        ({"dtype": "float64"}, "dtype"),
        ({"conv": "fft"}, "conv"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        C3D(**wrong)
