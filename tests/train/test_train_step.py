"""The two levels of a step, on a method whose numbers can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.base import Inner, Method
from vrl_jax.methods.bod import BOD
from vrl_jax.train import sharding
from vrl_jax.train.optim import SGD, AdamW
from vrl_jax.train.train_step import TrainState, init_state, make_step, step_key
from vrl_jax.types import TrainLength, View

START = np.array([1.0, -2.0], np.float32)
TARGET = np.array([0.5, 3.0], np.float32)
CURVES = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)


def quadratic(hypergradient, steps=1, rate=0.1):
    """Return a method with outer loss |p - TARGET|^2 / 2 and inner loss p'CURVES p / 2."""
    inner = Inner(
        lambda params, state, clips, key, step: params @ CURVES @ params / 2,
        steps,
        lambda step: rate * jnp.where(step == 0, 1, 0.5),
        hypergradient,
    )
    return Method(
        views=(View(0),),
        init=lambda key, clips: (jnp.array(START), {}),
        loss=lambda params, state, clips, key, step: (
            jnp.sum((params - TARGET) ** 2) / 2,
            ({}, {}),
        ),
        update=lambda params, state, aux, step: (params, state),
        encode=None,
        encoder=None,
        inner=inner if steps else None,
    )


def take(method, first=0, split=None):
    """Take a step on one device, or with the state split over `split` devices."""
    devices = sharding.make_mesh(jax.devices()[: split or 1])
    optimizer = SGD(
        learning_rate=0.2, warmup=0.0, weight_decay=0.0, momentum=0.0, nesterov=False
    ).build(2, 10**6)
    params = jnp.array(START)
    state = TrainState(jnp.int32(first), params, {}, optimizer.init(params))
    layout = sharding.state_sharding(devices, state) if split else None
    step = make_step(method, optimizer, Augment(size=4, flip=0.0), 0, devices, layout=layout)
    state = jax.device_put(state, layout or sharding.replicated_sharding(devices))
    rows = np.zeros(
        (2 * (1 + (method.inner.steps if method.inner else 0)), 1, 1, 8, 8, 3), np.uint8
    )
    return step(state, sharding.shard_rows(devices, rows))


@pytest.mark.parametrize("name, scale", [("none", 0.0), ("maml1", 0.1), ("betty", 1.0)])
@pytest.mark.parametrize("steps", [1, 2])
def test_two_levels(name, scale, steps):
    state, metrics = take(quadratic(name, steps))
    lower = START
    for _ in range(steps):
        residual = lower @ CURVES @ lower / 2
        lower = lower - 0.1 * CURVES @ lower
    gradient = lower - TARGET
    gradient = gradient - scale * CURVES @ gradient
    np.testing.assert_allclose(state.params, lower - 0.2 * gradient, rtol=1e-5)
    np.testing.assert_allclose(metrics["inner/forecast"], residual, rtol=1e-5)
    np.testing.assert_allclose(metrics["norm/gradient"], np.linalg.norm(gradient), rtol=1e-5)


def test_the_lower_rate_is_that_of_the_step():
    state, _ = take(quadratic("maml1"), first=7)
    lower = START - 0.05 * CURVES @ START
    gradient = (np.eye(2) - 0.05 * CURVES) @ (lower - TARGET)
    np.testing.assert_allclose(state.params, lower - 0.2 * gradient, rtol=1e-5)


def test_one_level():
    state, metrics = take(quadratic("none", steps=0))
    np.testing.assert_allclose(state.params, START - 0.2 * (START - TARGET), rtol=1e-6)
    assert "inner/forecast" not in metrics and int(state.step) == 1


def test_keys_differ_by_purpose_step_and_seed():
    keys = [step_key(0, "a", 1), step_key(0, "b", 1), step_key(0, "a", 2), step_key(1, "a", 1)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
    again = jax.random.key_data(step_key(0, "a", 1))
    np.testing.assert_array_equal(again, jax.random.key_data(keys[0]))


def test_bfloat16_computation_trains_float32_weights(rng):
    encoder = Tiny(widths=(4, 6), strides=(2, 2), dtype="bfloat16", conv="native")
    method = BOD(dim=8, split_at="backbone", ridge=0.03, inner_steps=0).build(
        encoder, SimCLR(hidden=16, layers=2), TrainLength(30, 10)
    )
    optimizer = AdamW(learning_rate=1e-2, warmup=0.0).build(8, 30)
    devices = sharding.make_mesh(jax.devices()[:1])
    still = Augment(size=12, area=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=0.0)
    videos = rng.integers(0, 256, (8, 1, 6, 12, 12, 3), np.uint8)
    clips = np.concatenate([videos, videos], axis=1)
    shape = jax.ShapeDtypeStruct(clips.shape, jnp.uint8)
    state = init_state(method, optimizer, shape, still, 0, devices)
    step = make_step(method, optimizer, still, 0, devices)
    losses = []
    for _ in range(30):
        state, metrics = step(state, sharding.shard_rows(devices, clips))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
