import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.losses import koopman, nt_xent
from vrl_jax.methods.bod import BOD, soft_normalize
from vrl_jax.methods.bod_released import ReleasedBOD
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6), strides=(2, 2))
FRAMEWORK = SimCLR(hidden=8, layers=2)


def build(framework=FRAMEWORK, kind=BOD, **settings):
    method = kind(dim=5, **settings).build(ENCODER, framework, TrainLength(10, 5))
    clips = jax.random.normal(jax.random.key(0), (4, 2, 7, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    return method, params, state, clips


@pytest.mark.parametrize(
    "kind, settings",
    [
        (BOD, {"split_at": "backbone", "pooling": "rms", "radius": 0.3, "stop_filter": True}),
        (BOD, {"split_at": "head", "grid": 2}),
        (BOD, {"split_at": "backbone", "grid": 2, "reversed_negatives": True}),
        (MeanResidual, {"split_at": "backbone", "inner_steps": 0}),
        (MeanResidual, {"split_at": "head"}),
    ],
    ids=str,
)
def test_every_variant_has_both_losses_and_finite_slopes(kind, settings):
    variants_are_sound(kind, settings)


def variants_are_sound(kind, settings):
    """Assert that the loss is the sum of both parts and that the encoder's gradient is finite."""
    method, params, state, clips = build(kind=kind, **settings)

    def loss(params):
        return method.loss(params, state, clips, jax.random.key(2), jnp.int32(0))

    (value, (_, metrics)), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert float(value) == pytest.approx(
        float(metrics["loss/static"] + metrics["loss/dynamic"]), rel=1e-5
    )
    encoder = jax.tree.leaves(slopes["network"]["encoder"])
    assert all(np.isfinite(slope).all() for slope in encoder)
    assert any(np.abs(slope).max() > 0 for slope in encoder)
    assert (method.inner is None) == (settings.get("inner_steps") == 0)


def frames_in_training(variables, clips):
    """Return the head's frame vectors with the batch's own statistics, as training sees them."""
    encoder, head = ENCODER.module(), FRAMEWORK.head(5)
    parts = {
        name: {k: v[name] for k, v in variables.items() if name in v}
        for name in ("encoder", "heads_frames")
    }
    features, _ = encoder.apply(parts["encoder"], clips, True, mutable=["batch_stats"])
    return head.apply(parts["heads_frames"], features.frames, True, mutable=["batch_stats"])[0]


def test_the_control_tells_nothing_of_an_operator():
    method, params, state, clips = build(kind=MeanResidual, split_at="backbone", inner_steps=0)
    _, (_, metrics) = method.loss(params, state, clips, jax.random.key(2), jnp.int32(0))
    names = {name for name in metrics if name.startswith("koopman/")}
    assert names == {"koopman/static_share", "koopman/dynamic_share"}


def test_a_reversed_view_is_a_negative_of_the_motion_loss_alone():
    settings = {"split_at": "head", "inner_steps": 0, "ridge": 0.05}
    method, params, state, clips = build(**settings, reversed_negatives=True)
    value, (_, metrics) = jax.jit(method.loss)(
        params, state, clips, jax.random.key(2), jnp.int32(0)
    )
    flat = jnp.concatenate([clips, clips[:, :1, ::-1]], axis=1).reshape(12, *clips.shape[2:])
    frames = frames_in_training({"params": params["network"], "batch_stats": state["stats"]}, flat)
    parts = koopman.split(frames, ridge=0.05)
    floor = 0.01 * jnp.linalg.norm(jnp.mean(frames, axis=1), axis=-1, keepdims=True)
    static, dynamic = (
        soft_normalize(part, floor).reshape(4, 3, -1) for part in (parts.static, parts.dynamic)
    )
    options = {"temperature": 0.1, "unit": False}
    expected = nt_xent(static[:, 0], static[:, 1], **options)
    assert float(metrics["loss/static"]) == pytest.approx(float(expected), rel=1e-4)
    expected = nt_xent(dynamic[:, 0], dynamic[:, 1], **options, negatives=dynamic[:, 2])
    assert float(metrics["loss/dynamic"]) == pytest.approx(float(expected), rel=1e-4)


def test_an_absent_part_stays_near_zero():
    x = jnp.array([[1e-4, 0.0], [3.0, 4.0]])
    got = soft_normalize(x, jnp.full((2, 1), 0.05))
    np.testing.assert_allclose(got, [[2e-3, 0], [0.6, 0.8]], atol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"split_at": "tail"}, "split_at must be one of 'head', 'backbone'"),
        ({"inner_steps": -1}, "inner_steps must be at least 0"),
        ({"inner_learning_rate": -1.0}, "inner_learning_rate must be at least 0"),
        ({"forecast": "literal"}, "forecast must be one of 'held_out', 'cross', 'shared'"),
        ({"pooling": "max"}, "pooling must be one of"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BOD(**settings)


@pytest.mark.parametrize("forecast", ["held_out", "cross", "literal", "shared"])
def test_the_forecast_counts_with_its_weight(forecast):
    settings = {"split_at": "backbone", "inner_steps": 0, "ridge": 0.05, "forecast_weight": 3.0}
    if forecast == "literal":
        settings |= {"kind": ReleasedBOD, "split_at": "head"}  # narrow: 5 wide, 6 transitions
    method, params, state, clips = build(**settings, forecast=forecast)
    value, (_, metrics) = jax.jit(method.loss)(
        params, state, clips, jax.random.key(2), jnp.int32(0)
    )
    parts = float(metrics["loss/static"] + metrics["loss/dynamic"])
    assert float(value) == pytest.approx(parts + 3 * float(metrics["loss/forecast"]), rel=1e-5)
    assert float(metrics["loss/forecast"]) > 0
    assert ("heads_forecast" in params["network"]) == (forecast == "shared")
