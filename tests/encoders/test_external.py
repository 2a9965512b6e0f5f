"""Functions of the user as encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax import config, pretrained
from vrl_jax.encoders.external import External, external

INPUT = {"size": 4, "frames": 6, "stride": 2, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def layers(clips):
    patches = clips.reshape(len(clips), 6, 4, -1)  # b, frames, rows, columns and channels
    return {"block10": 2 * patches.reshape(len(clips), 24, -1), "block2": patches[:, :, :, None]}


@external(**INPUT, times=6)
def traced(clips):
    assert isinstance(clips, jax.Array)
    return layers(clips)


@external(**INPUT, times=6, host=True)
def on_host(clips):
    assert isinstance(clips, np.ndarray)
    return layers(clips)


@external(**INPUT, times=5)
def indivisible(clips):
    return layers(clips)


def bare(clips):
    return layers(clips)


@pytest.mark.parametrize("name", ["traced", "on_host"])
def test_layers_are_stages_in_their_order(rng, name):
    model = pretrained.load(f"{__name__}:{name}")
    assert (model.sampling.frames, model.sampling.stride, model.augment.size) == (6, 2, 4)
    assert model.count_parameters() == 0 and model.encoder.dim == 12
    clips = rng.integers(256, size=(3, 6, 4, 4, 3), dtype=np.uint8)
    features = jax.jit(lambda views: model(views))(model.prepare(clips))
    assert [stage.shape for stage in features.stages] == [(3, 6, 4, 1, 12)] * 2
    expected = ((clips / 255 - 0.5) / 0.25).reshape(3, 6, 4, 1, 12)
    np.testing.assert_allclose(features.stages[1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.stages[0], 2 * features.stages[1], rtol=1e-6)
    np.testing.assert_allclose(features.clip, expected.mean((1, 2, 3)), rtol=1e-3, atol=1e-5)
    assert config.build(config.describe(model.encoder)) == model.encoder
    assert model.origin["function"] == f"{__name__}:{name}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.nowhere:traced", "there is no function tests.nowhere:traced: No module"),
        (f"{__name__}:nothing", "there is no function .*:nothing"),
        (f"{__name__}:bare", "bare must be decorated by vrl_jax.encoders.external.external"),
    ],
)
def test_refuses(path, message):
    with pytest.raises(ValueError, match=message):
        pretrained.load(path)


def test_refuses_tokens_that_times_do_not_divide():
    clips = jnp.zeros((1, 6, 4, 4, 3))
    module = External(f"{__name__}:indivisible").module()
    with pytest.raises(ValueError, match="a multiple of times=5, .* got 1 x 24 x 12"):
        jax.eval_shape(lambda: module.apply({}, clips, False))
    with pytest.raises(ValueError, match="step must be None, since .* is a function, got 3"):
        pretrained.load(f"{__name__}:traced", step=3)
