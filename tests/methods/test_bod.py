import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.drawn import draw_weights, normal
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.losses import koopman, nt_xent
from vrl_jax.methods.bod import BOD, soft_normalize
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6), strides=(2, 2), conv="native")
FRAMEWORK = SimCLR(hidden=8, layers=2)


def build(framework=FRAMEWORK, kind=BOD, **settings):
    """Return a method, its parameters and state, and clips."""
    method = kind(dim=5, **settings).build(ENCODER, framework, TrainLength(10, 5))
    clips = normal(4, len(method.views), 7, 8, 8, 3)
    return method, *draw_weights(method, clips), clips


def metric_names(**settings):
    """Return the names of a method's metrics, for which nothing needs to be compiled."""
    method, *arguments = build(**settings)
    result = jax.eval_shape(method.loss, *arguments, jax.random.key(2), np.int32(0))
    return {*result[1][1]}


@pytest.mark.parametrize(
    "kind, settings",
    [
        (BOD, {"split_at": "backbone", "pooling": "rms", "radius": 0.3, "stop_filter": True}),
        (BOD, {"split_at": "head", "grid": 2, "forecast": "cross", "forecast_weight": 3.0}),
        (
            BOD,
            {
                "split_at": "backbone",
                "grid": 2,
                "reversed_negatives": True,
                "forecast": "shared",
                "forecast_weight": 3.0,
            },
        ),
        (MeanResidual, {"split_at": "backbone", "inner_steps": 0, "forecast_weight": 3.0}),
        (MeanResidual, {"split_at": "backbone", "inner_steps": 0, "degree": 2, "unit": True}),
        (BOD, {"split_at": "backbone", "pooling": "rms", "delay": 2, "forecast_weight": 1.0}),
    ],
    ids=str,
)
def test_every_variant_sums_its_losses_and_has_finite_slopes(kind, settings):
    variants_are_sound(kind, settings)


def variants_are_sound(kind, settings):
    """Assert that the loss is the sum of its parts and that the encoder's gradient is finite."""
    method, params, state, clips = build(kind=kind, **settings)
    evaluate = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (value, (_, metrics)), slopes = jax.device_get(
        evaluate(params, state, clips, jax.random.key(2), np.int32(0))
    )
    slopes = slopes["network"]
    expected = metrics["loss/static"] + metrics["loss/dynamic"]
    weight = settings.get("forecast_weight", 0)
    if weight:
        assert metrics["loss/forecast"] > 0
        expected += weight * metrics["loss/forecast"]
    assert ("loss/forecast" in metrics) == bool(weight)
    assert value == pytest.approx(expected, rel=1e-5)
    encoder = jax.tree.leaves(slopes["encoder"])
    assert all(np.isfinite(slope).all() for slope in encoder)
    assert any(np.abs(slope).max() > 0 for slope in encoder)
    assert ("heads_forecast" in slopes) == (settings.get("forecast") == "shared")
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


@jax.jit
def parts_of(params, state, clips):
    """Return the scaled static and dynamic parts of views f32[b v t h w 3], f32[b v d]."""
    variables = {"params": params["network"], "batch_stats": state["stats"]}
    frames = frames_in_training(variables, clips.reshape(-1, *clips.shape[2:]))
    parts = koopman.split(frames, ridge=0.05)
    whole = jnp.linalg.norm(jnp.mean(frames, axis=1), axis=-1, keepdims=True)
    return [
        (part / jnp.sqrt(jnp.sum(part**2, -1, keepdims=True) + (0.01 * whole) ** 2)).reshape(
            *clips.shape[:2], -1
        )
        for part in (parts.static, parts.dynamic)
    ]


contrast = jax.jit(functools.partial(nt_xent, temperature=0.1, unit=False))


def test_the_control_tells_nothing_of_an_operator():
    names = metric_names(kind=MeanResidual, split_at="backbone", inner_steps=0)
    assert {name for name in names if name.startswith("koopman/")} == {
        "koopman/static_share",
        "koopman/dynamic_share",
    }


def test_a_reversed_view_is_a_negative_of_the_motion_loss_alone():
    settings = {"split_at": "head", "inner_steps": 0, "ridge": 0.05}
    method, params, state, clips = build(**settings, reversed_negatives=True)
    _, (_, metrics) = jax.jit(method.loss)(params, state, clips, jax.random.key(2), np.int32(0))
    views = np.concatenate([clips, clips[:, :1, ::-1]], axis=1)
    static, dynamic = jax.device_get(parts_of(params, state, views))
    expected = contrast(static[:, 0], static[:, 1])
    assert float(metrics["loss/static"]) == pytest.approx(float(expected), rel=1e-4)
    expected = contrast(dynamic[:, 0], dynamic[:, 1], negatives=dynamic[:, 2])
    assert float(metrics["loss/dynamic"]) == pytest.approx(float(expected), rel=1e-4)


def test_an_absent_part_stays_near_zero():
    x = np.array([[1e-4, 0.0], [3.0, 4.0]], np.float32)
    got = jax.jit(soft_normalize)(x, np.full((2, 1), 0.05, np.float32))
    np.testing.assert_allclose(got, [[2e-3, 0], [0.6, 0.8]], atol=1e-4)


def test_a_radius_that_covers_the_datas_motions_to_and_fro_is_warned_of():
    shuttles, gratings = Synthetic(), Synthetic(motion="standing")  # from 0.63 and 0.40 radians
    once, twice = Sampling(stride=1), Sampling(stride=2)
    (text,) = BOD(radius=0.3).data_warnings(shuttles, once)
    assert "radius=0.3 counts" in text and "up to 0.80" in text and "from 0.63" in text
    assert "delay=2, or a radius below 0.19" in text
    for method, data, sampling in (
        (BOD(radius=0.18), shuttles, once),
        (BOD(radius=0.3, delay=2), shuttles, once),
        (BOD(radius=0.3), shuttles, twice),
        (BOD(radius=0.3), Synthetic(classes=6), once),
        (BOD(radius=0.3), Synthetic(motion="travelling"), once),
        (MeanResidual(radius=0.3), gratings, once),
    ):
        assert method.data_warnings(data, sampling) == []
    assert BOD().data_warnings(gratings, once) and not BOD(radius=0.07).data_warnings(
        gratings, once
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"delay": 0}, "delay must be at least 1"),
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
