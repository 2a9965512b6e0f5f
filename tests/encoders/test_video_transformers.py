"""Published video transformers; `tests/convert` compares their tokens."""

import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from tests.encoders.reference import count, fill, shapes_of
from vrl_jax.encoders.attention import drop_path, drop_rates
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.rvm import RVM
from vrl_jax.encoders.timesformer import TimeSformer
from vrl_jax.encoders.videomae import VideoMAE, sine_table
from vrl_jax.encoders.videoprism import VideoPrism
from vrl_jax.encoders.vit import ViT
from vrl_jax.encoders.vivit import ViViT
from vrl_jax.encoders.vjepa2 import VJEPA2, rotary_waves

SMALL = {"width": 12, "depth": 2, "heads": 2, "patch": 4}
FIXED = {**SMALL, "frames": 4, "size": 8}
CONFIGS = [
    VideoMAE(**SMALL, norm="mean"),
    VJEPA2(**SMALL),
    VideoPrism(**FIXED, time_depth=3),
    ViViT(**FIXED),
    TimeSformer(**FIXED),
    FourDS(**FIXED),
    RVM(**SMALL, core_depth=2),
]


@pytest.mark.parametrize(
    ("config", "shape", "total"),
    [
        (VideoMAE(), (1, 16, 224, 224, 3), 86_227_200),
        (VJEPA2(), (1, 16, 256, 256, 3), 303_885_312),
        (VideoPrism(), (1, 16, 288, 288, 3), 114_365_184),
        (ViViT(), (1, 32, 224, 224, 3), 88_646_400),
        (TimeSformer(), (1, 8, 224, 224, 3), 121_258_752),
        (FourDS(), (1, 16, 224, 224, 3), 87_439_104),
        (RVM(), (1, 4, 256, 256, 3), 374_483_968),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_and_maps(config, shape, total):
    features, variables = shapes_of(config.module(), shape)
    assert count(variables["params"]) == total
    times, side = shape[1] // config.temporal_stride, shape[2] // config.patch
    expected = (1, times, side, side, config.width)
    assert [stage.shape for stage in features.stages] == [expected] * len(config.blocks())
    assert features.clip.shape == (1, config.dim)


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_bfloat16_and_remat_keep_variables_in_float32(config):
    config = replace(config, dtype="bfloat16", remat=True)
    features, variables = shapes_of(config.module(), (2, 4, 8, 8, 3))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert all(stage.dtype == jnp.bfloat16 for stage in features.stages)
    assert features.clip.dtype == features.frames.dtype == jnp.float32


@pytest.mark.parametrize(
    "config",
    [ViT(**{**SMALL, "depth": 4}), *CONFIGS[1:3], CONFIGS[4], CONFIGS[-1]],
    ids=lambda config: type(config).__name__,
)
def test_paths_are_dropped_in_training_only(config):
    clips = jax.ShapeDtypeStruct((2, 4, 8, 8, 3), jnp.float32)
    module, key = replace(config, remat=True).module(0.5), jax.random.key(0)
    _, variables = shapes_of(config.module(), clips.shape)
    assert shapes_of(module, clips.shape)[1] == variables

    def trace(train, **rngs):
        return jax.eval_shape(
            lambda *inputs: module.apply(*inputs, train, rngs=rngs).clip, variables, clips
        )

    trace(False)
    with pytest.raises(InvalidRngError):
        trace(True)
    assert trace(True, dropout=key).shape == (2, config.dim)


def test_a_dropped_path_is_a_row_and_the_others_are_scaled(rng):
    class Path(nn.Module):
        @nn.compact
        def __call__(self, x):
            return drop_path(x, 0.25)

    x = rng.normal(size=(4000, 2, 3)).astype(np.float32)
    y = np.asarray(jax.jit(lambda x: Path().apply({}, x, rngs={"dropout": jax.random.key(0)}))(x))
    dropped = ~y.any((1, 2))
    np.testing.assert_allclose(y[~dropped], x[~dropped] / 0.75, rtol=1e-6)
    assert abs(dropped.mean() - 0.25) < 0.03
    np.testing.assert_allclose(drop_rates(0.1, 12), np.linspace(0, 0.1, 12), atol=1e-12)
    assert drop_rates(0.1, 1) == [0.0]


def test_learning_rates_fall_from_layer_to_layer():
    names = ["embed", "block0", "block1", "norm", "fc_norm"]
    rates = VideoMAE(**SMALL).layer_rates(names, 0.5)
    assert rates == dict(zip(names, [0.125, 0.25, 0.5, 1, 1], strict=True))
    names = ["space_positions", "block1", "space_norm", "time_block0", "time_block2", "norm"]
    rates = VideoPrism(**FIXED, time_depth=3).layer_rates(names, 0.5)
    assert rates == dict(zip(names, [2**-6, 2**-4, 2**-4, 2**-3, 0.5, 1], strict=True))
    rates = RVM(**SMALL).layer_rates(["class_token", "block1", "frame_norm", "core"], 0.5)
    assert list(rates.values()) == [2**-4, 2**-2, 2**-2, 0.5]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_parameter_has_a_layer(config):
    _, variables = shapes_of(config.module(), (1, 4, 8, 8, 3))
    layers = {name: config.layer_of(name) for name in variables["params"]}
    blocks = config.blocks()
    assert set(blocks) < set(layers)
    early = {"embed", "class_token", "positions", "space_positions", "time_positions", "modality"}
    others = {name for name, layer in layers.items() if name not in (*blocks, *early)}
    assert all(layers[name] > 0 for name in others) and not any(
        layers[n] for n in early & {*layers}
    )


def test_sines_equal_loops():
    expected = np.zeros((5, 7))
    for n in range(5):
        for channel in range(7):
            angle = n / 10000 ** (2 * (channel // 2) / 7)
            expected[n, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    np.testing.assert_allclose(sine_table(5, 7), expected, atol=1e-12)


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_rotation_equals_loops(version):
    grid, channels, number = (2, 3, 4), 14, 0
    cosine, sine = rotary_waves(grid, channels, version)
    for position in np.ndindex(grid):
        expected = np.zeros(channels)
        for axis, coordinate in enumerate(position):
            if version == "2.1" and axis:
                coordinate = coordinate * 15 / (grid[axis] - 1)
            for channel in range(4):
                frequency = channel % 2 if version == "2" else channel // 2
                expected[4 * axis + channel] = coordinate * 10000 ** (-frequency / 2)
        np.testing.assert_allclose(cosine[number], np.cos(expected), atol=1e-6)
        np.testing.assert_allclose(sine[number], np.sin(expected), atol=1e-6)
        number += 1


def test_the_mean_of_tokens_is_normalised_after_fine_tuning(rng):
    config = VideoMAE(**SMALL, norm="mean")
    variables = fill(config.module(), (2, 4, 8, 8, 3), rng)
    clips = rng.normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    features = jax.jit(lambda v, x: config.module().apply(v, x, False))(variables, clips)
    scale, bias = (variables["params"]["fc_norm"][name] for name in ("scale", "bias"))
    mean = np.asarray(features.stages[-1]).mean((1, 2, 3))
    centred = mean - mean.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(features.clip, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS[2:-1], ids=repr)
def test_clips_of_another_size_than_learned_positions_are_refused(config):
    with pytest.raises(ValueError, match="clips must be 4 x 8 x 8, .* positions, got 6 x 8 x 12"):
        shapes_of(config.module(), (1, 6, 8, 12, 3))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (VideoMAE, {"width": 100}, "width must be a multiple of heads 12, got 100"),
        (VideoMAE, {"hidden": -1}, "hidden"),
        (VideoMAE, {"norm": "max"}, "norm"),
        (VideoMAE, {"epsilon": 0.0}, "epsilon"),
        (VideoMAE, {"dtype": "float64"}, "dtype"),
        (VJEPA2, {"version": "1"}, "version"),
        (VJEPA2, {"width": 64}, "heads must have at least 6 channels, .* got 4"),
        (VideoPrism, {"temporal_stride": 2}, "temporal_stride must be 1, got 2"),
        (VideoPrism, {"size": 280}, "size must be a multiple of patch 18, got 280"),
        (ViViT, {"frames": 0}, "frames"),
        (TimeSformer, {"temporal_stride": 2}, "temporal_stride must be 1, got 2"),
        (FourDS, {"frames": 0}, "frames"),
    ],
)
def test_refuses(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)
