"""BOD-VCL with the options of the released code and of ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods import test_bod
from tests.methods.test_bod import (
    ENCODER,
    FRAMEWORK,
    contrast,
    frames_in_training,
    metric_names,
    parts_of,
    variants_are_sound,
)
from vrl_jax.frameworks.swav import SwAV
from vrl_jax.losses import koopman, normalize, sinkhorn, swapped_prediction
from vrl_jax.methods.bod import BOD
from vrl_jax.methods.bod_released import ReleasedBOD
from vrl_jax.types import TrainLength


def build(framework=FRAMEWORK, **settings):
    return test_bod.build(framework, ReleasedBOD, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"split_at": "backbone", "filter": "eig-hard", "ridge": 0.05},
        {
            "split_at": "head",  # narrow: 5 wide, 6 transitions
            "filter": "eig-qr",
            "radius": 0.5,
            "forecast": "literal",
            "forecast_weight": 3.0,
        },
        {"split_at": "backbone", "scope": "video", "ridge": 0.05},
        {"split_at": "backbone", "scope": "batch", "projector": "orthogonal", "ridge": 0.05},
    ],
    ids=str,
)
def test_every_variant_sums_its_losses_and_has_finite_slopes(settings):
    variants_are_sound(ReleasedBOD, settings)


def test_with_the_defaults_it_is_bod():
    settings = {"ridge": 0.05, "forecast_weight": 1.0}
    results = []
    for kind in (BOD, ReleasedBOD):
        method, params, state, clips = test_bod.build(kind=kind, **settings)
        key, step = jax.random.key(2), np.int32(3)
        results.append(float(jax.jit(method.loss)(params, state, clips, key, step)[0]))
        results.append(float(jax.jit(method.inner.learning_rate)(step)))
        assert method.inner.hypergradient == "none"
    assert results[:2] == results[2:]


def test_the_scores_of_frames_can_be_split():
    framework = SwAV(hidden=8, layers=2, prototypes=6, freeze_epochs=1.0)
    method, params, state, clips = build(framework, split_at="scores", ridge=0.05)

    @jax.jit
    def evaluate(params, clips, step):
        """Return the metrics, and the slopes of both levels along the prototypes."""
        arguments = state, clips, jax.random.key(2), step
        slopes, (_, metrics) = jax.grad(method.loss, has_aux=True)(params, *arguments)
        lower = jax.grad(method.inner.loss)(params, *arguments)
        return metrics, [x["network"]["heads_frames"]["prototypes"] for x in (slopes, lower)]

    @jax.jit
    def expected(params, clips):
        tree = {"params": params["network"], "batch_stats": state["stats"]}
        inner = {k: {**v, "heads_frames": v["heads_frames"]["head"]} for k, v in tree.items()}
        z = frames_in_training(inner, clips.reshape(-1, *clips.shape[2:]))
        head = params["network"]["heads_frames"]
        scores = (normalize(z) @ normalize(head["prototypes"]).T).reshape(4, 2, 7, 6)
        parts = koopman.split(scores, ridge=0.05)
        return {
            name: (swapped_prediction(a, sinkhorn(b)) + swapped_prediction(b, sinkhorn(a))) / 2
            for name in ("static", "dynamic")
            for a, b in [jnp.moveaxis(getattr(parts, name), 1, 0)]
        }

    metrics, _ = evaluate(params, clips, np.int32(0))
    for name, value in expected(params, clips).items():
        assert float(metrics[f"loss/{name}"]) == pytest.approx(float(value), rel=1e-3)
    for step in (4, 5):  # an epoch is five steps
        for slope in evaluate(params, clips, np.int32(step))[1]:
            assert np.any(slope) == (step == 5)


def test_the_lower_rate_warms_up_and_falls_with_the_run():
    method = ReleasedBOD(inner_learning_rate=0.5, inner_warmup=0.2).build(
        ENCODER, FRAMEWORK, TrainLength(50, 5)
    )
    rate = jax.jit(method.inner.learning_rate)(np.array([0, 5, 10, 30, 50]))
    np.testing.assert_allclose(rate, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)


def test_scores_are_swavs_alone():
    with pytest.raises(ValueError, match="prototypes, which SimCLR does not have: use SwAV"):
        build(split_at="scores")


def test_the_literal_forecast_is_refused_where_it_is_void():
    with pytest.raises(ValueError, match="got width 6 and 6 transitions"):
        metric_names(kind=ReleasedBOD, split_at="backbone", forecast="literal", forecast_weight=1.0)


@pytest.mark.parametrize(
    "weights, terms",
    [
        ({"static_weight": 0.0}, {"dynamic"}),
        ({"dynamic_weight": 0.0}, {"static"}),
        ({"static_weight": 0.0, "dynamic_weight": 0.0, "joint_weight": 1.0}, {"joint"}),
        ({"joint_weight": 0.5}, {"static", "dynamic", "joint"}),
    ],
)
@pytest.mark.parametrize("split_at", ["head", "backbone"])
def test_arms_leave_out_what_has_no_weight(weights, terms, split_at):
    names = metric_names(kind=ReleasedBOD, **weights, split_at=split_at, inner_steps=0)
    assert {name[5:] for name in names if name.startswith("loss/")} == terms
    with pytest.raises(ValueError, match="sum of the losses' weights must be above 0"):
        ReleasedBOD(static_weight=0.0, dynamic_weight=0.0)


def test_parts_are_weighted_and_compared_in_all_pairs_of_clips():
    method, params, state, clips = build(
        clips=3, ridge=0.05, inner_steps=0, static_weight=0.5, dynamic_weight=2.0
    )
    value, (_, metrics) = jax.jit(method.loss)(params, state, clips, jax.random.key(2), np.int32(0))
    terms = [
        np.mean([contrast(part[:, i], part[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))])
        for part in jax.device_get(parts_of(params, state, clips))
    ]
    assert float(metrics["loss/static"]) == pytest.approx(terms[0], rel=1e-3)
    assert float(metrics["loss/dynamic"]) == pytest.approx(terms[1], rel=1e-3)
    assert float(value) == pytest.approx(0.5 * terms[0] + 2 * terms[1], rel=1e-3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"split_at": "tail"}, "split_at must be one of 'head', 'backbone', 'scores'"),
        ({"hypergradient": "exact"}, "hypergradient must be one of"),
        ({"clips": 1}, "clips must be at least 2"),
        ({"joint_weight": -1.0}, "joint_weight must be at least 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ReleasedBOD(**settings)
