"""The contract of every encoder."""

import functools
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.encoders.reference import fill, shapes_of
from vrl_jax.encoders import c3d, r2plus1d, r3d, s3d, slowonly
from vrl_jax.encoders.attention import Transformer
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.rvm import RVM
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.videomae import VideoMAE
from vrl_jax.encoders.vit import ViT
from vrl_jax.encoders.vjepa2 import VJEPA2

SHALLOW = (1, 1, 1, 1)
CONFIGS = [
    Tiny(widths=(4, 6, 8)),
    R2plus1D(blocks=SHALLOW, conv="native"),  # compiles in less time than "per_tap"
    R2plus1D(blocks=SHALLOW, variant="vcop", temporal_stride=1, conv="native"),
    R3D(blocks=SHALLOW, conv="native"),
    SlowOnly(blocks=SHALLOW, conv="native"),
    C3D(conv="native"),
    S3D(conv="native"),
    S3D(gated=True, temporal_stride=1, conv="native"),
    VideoMAE(width=12, depth=2, heads=2, temporal_stride=1, patch=2),
    VJEPA2(width=16, depth=2, heads=2, temporal_stride=1, patch=2, version="2.1"),
    RVM(width=12, depth=1, heads=2, patch=2, core_depth=1),
    ViT(width=14, depth=4, heads=2, temporal_stride=1, patch=2),
]
GATED = [config for config in CONFIGS if config != S3D(conv="native")]  # S3D and more
SHAPE = (2, 5, 18, 20, 3)


def narrow_networks(monkeypatch):
    """Leave of the networks whose layers are fixed what compiles quickly."""
    monkeypatch.setattr(c3d, "WIDTHS", ((4,), (4,), (4, 6), (6, 4), (8, 12)))
    monkeypatch.setattr(s3d, "STAGES", (((3, 4, 5, 3, 4, 2),),) * 3)
    for module in (r3d, r2plus1d, slowonly):
        monkeypatch.setattr(module, "WIDTHS", (4, 6, 8, 12))


narrow = pytest.fixture(autouse=True)(narrow_networks)


@functools.cache
def encoder_of(config):
    """Return a compiled encoder; the variables are arguments, not constants to compile in."""
    apply = functools.partial(config.module().apply, mutable=["batch_stats"])
    return jax.jit(apply, static_argnums=2)


@functools.cache
def variables_of(config):
    return fill(config.module(), SHAPE, np.random.default_rng(1))


def encode(config, variables, clips, train):
    return jax.device_get(encoder_of(config)(variables, clips, train))


def draw(rng, config):
    return variables_of(config), rng.normal(size=SHAPE).astype(np.float32)


def statistics(variables):
    return {**variables.get("batch_stats", {})}


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_evaluation_is_pure_and_clips_are_independent(rng, config):
    variables, x = draw(rng, config)
    both, updated = encode(config, variables, x, False)
    swapped, _ = encode(config, variables, x[::-1], False)
    before = statistics(variables)
    chex.assert_trees_all_equal(before, statistics(updated))
    np.testing.assert_allclose(swapped.clip[::-1], both.clip, rtol=1e-4, atol=1e-5)
    chex.assert_shape(both.clip, (2, config.dim))
    assert np.abs(both.clip[0] - both.clip[1]).max() > 1e-3
    np.testing.assert_allclose(both.frames.mean(1), both.clip, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both.stages[-1].mean((2, 3)), both.frames, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", GATED, ids=repr)
def test_training_updates_every_statistic(rng, config):
    variables, x = draw(rng, config)
    before, after = statistics(variables), statistics(encode(config, variables, x, True)[1])
    assert bool(before) == (not isinstance(config, Transformer))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(old - new).max() > 1e-4


@pytest.mark.parametrize("config", GATED, ids=repr)
def test_bfloat16_keeps_variables_and_pooled_features_in_float32(config):
    config = replace(config, dtype="bfloat16")
    _, initial = shapes_of(config.module(), SHAPE)
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    features, updated = jax.eval_shape(lambda v, x: encoder_of(config)(v, x, True), initial, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((initial, updated)))
    assert all(stage.dtype == jnp.bfloat16 for stage in features.stages)
    assert features.clip.dtype == features.frames.dtype == jnp.float32


@pytest.mark.parametrize("config", [CONFIGS[0], *CONFIGS[4:6], *CONFIGS[7:]], ids=repr)
def test_bfloat16_is_near_float32(rng, config):
    variables, x = draw(rng, config)
    half = replace(config, dtype="bfloat16")
    expected = encode(config, variables, x, False)[0].clip
    got = encode(half, variables, x, False)[0].clip
    assert 1e-5 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [R3D(blocks=SHALLOW), SlowOnly(blocks=SHALLOW), *CONFIGS[-2:]], ids=repr
)
def test_what_is_computed_again_for_the_gradient_is_the_same(rng, config):
    variables, x = jax.tree.map(jnp.asarray, draw(rng, config))
    stats = statistics(variables)

    def step(module, params):
        def loss(params):
            replaced = {"params": params, "batch_stats": stats}
            features, updated = module.apply(replaced, x, True, mutable=["batch_stats"])
            return (features.clip**2).sum(), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    def compiled(config):
        return jax.jit(lambda params: step(config.module(), params)).lower(variables["params"])

    lean = compiled(replace(config, remat=True))
    got, expected = (text.compile()(variables["params"]) for text in (lean, compiled(config)))
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        rounding = 1e-5 * max(1.0, float(np.abs(b).max()))  # of sums of slopes this large
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=rounding)
    assert "optimization_barrier" in lean.as_text()
