"""BOD-VCL with the options of the released code and of ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods import test_bod
from tests.methods.test_bod import ENCODER, FRAMEWORK, frames_in_training, variants_are_sound
from vrl_jax.frameworks.swav import SwAV
from vrl_jax.losses import koopman, normalize, nt_xent, sinkhorn, swapped_prediction
from vrl_jax.methods.bod import BOD, soft_normalize
from vrl_jax.methods.bod_released import ReleasedBOD
from vrl_jax.types import TrainLength


def build(framework=FRAMEWORK, **settings):
    return test_bod.build(framework, ReleasedBOD, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"split_at": "backbone", "filter": "eig-hard", "ridge": 0.05},
        {"split_at": "head", "filter": "eig-qr", "radius": 0.5},
        {"split_at": "backbone", "scope": "video", "ridge": 0.05},
        {"split_at": "backbone", "scope": "batch", "ridge": 0.05},
        {"split_at": "backbone", "projector": "orthogonal", "ridge": 0.05},
    ],
    ids=str,
)
def test_every_variant_has_both_losses_and_finite_slopes(settings):
    variants_are_sound(ReleasedBOD, settings)


def test_with_the_defaults_it_is_bod():
    settings = {"ridge": 0.05, "forecast_weight": 1.0}
    results = []
    for kind in (BOD, ReleasedBOD):
        method, params, state, clips = test_bod.build(FRAMEWORK, kind, **settings)
        key, step = jax.random.key(2), jnp.int32(3)
        results.append(jax.jit(method.loss)(params, state, clips, key, step)[0])
        results.append(method.inner.learning_rate(step))
        assert method.inner.hypergradient == "none"
    assert results[:2] == results[2:]


def test_the_loss_is_nt_xent_of_both_parts():
    method, params, state, clips = build(static_weight=0.5, dynamic_weight=2.0, ridge=0.05)
    value, (_, metrics) = jax.jit(method.loss)(
        params, state, clips, jax.random.key(2), jnp.int32(0)
    )
    flat = clips.reshape(-1, *clips.shape[2:])
    network_state = {"params": params["network"], "batch_stats": state["stats"]}
    frames = frames_in_training(network_state, flat)
    parts = koopman.split(frames, ridge=0.05)
    whole = np.linalg.norm(np.mean(frames, axis=1), axis=-1, keepdims=True)
    terms = []
    for part in (parts.static, parts.dynamic):
        z = (part / np.sqrt(np.sum(part**2, -1, keepdims=True) + (0.01 * whole) ** 2)).reshape(
            4, 2, -1
        )
        terms.append(float(nt_xent(z[:, 0], z[:, 1], temperature=0.1, unit=False)))
    assert float(metrics["loss/static"]) == pytest.approx(terms[0], rel=1e-3)
    assert float(metrics["loss/dynamic"]) == pytest.approx(terms[1], rel=1e-3)
    assert float(value) == pytest.approx(0.5 * terms[0] + 2 * terms[1], rel=1e-3)


def test_the_scores_of_frames_can_be_split():
    framework = SwAV(hidden=8, layers=2, prototypes=6, freeze_epochs=1.0)
    method, params, state, clips = build(framework, split_at="scores", ridge=0.05)

    @jax.jit
    def loss(params, step):
        return method.loss(params, state, clips, jax.random.key(2), step)

    _, (_, metrics) = loss(params, jnp.int32(0))
    flat = clips.reshape(-1, *clips.shape[2:])
    tree = {"params": params["network"], "batch_stats": state["stats"]}
    inner = {k: {**v, "heads_frames": v["heads_frames"]["head"]} for k, v in tree.items()}
    z = frames_in_training(inner, flat)
    head = params["network"]["heads_frames"]
    scores = (normalize(z) @ normalize(head["prototypes"]).T).reshape(4, 2, 7, 6)
    parts = koopman.split(scores, ridge=0.05)
    for name in ("static", "dynamic"):
        a, b = jnp.moveaxis(getattr(parts, name), 1, 0)
        expected = (swapped_prediction(a, sinkhorn(b)) + swapped_prediction(b, sinkhorn(a))) / 2
        assert float(metrics[f"loss/{name}"]) == pytest.approx(float(expected), rel=1e-3)

    @jax.jit
    def lower(params, step):
        return method.inner.loss(params, state, clips, jax.random.key(2), step)

    for step in (4, 5):  # an epoch is five steps
        for level in (lambda p, step: loss(p, step)[0], lower):
            slope = jax.grad(level)(params, jnp.int32(step))
            moves = bool(np.any(slope["network"]["heads_frames"]["prototypes"]))
            assert moves == (step == 5)


def test_the_lower_rate_warms_up_and_falls_with_the_run():
    method = ReleasedBOD(inner_learning_rate=0.5, inner_warmup=0.2).build(
        ENCODER, FRAMEWORK, TrainLength(50, 5)
    )
    rate = [float(method.inner.learning_rate(step)) for step in (0, 5, 10, 30, 50)]
    np.testing.assert_allclose(rate, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)


def test_scores_are_swavs_alone():
    with pytest.raises(ValueError, match="prototypes, which SimCLR does not have: use SwAV"):
        build(split_at="scores")


def test_the_literal_forecast_is_refused_where_it_is_void():
    with pytest.raises(ValueError, match="got width 6 and 6 transitions"):
        method, params, state, clips = build(split_at="backbone", forecast="literal")
        method.inner.loss(params, state, clips, jax.random.key(2), jnp.int32(0))


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
    method, params, state, clips = build(**weights, split_at=split_at, ridge=0.05, inner_steps=0)
    _, (_, metrics) = jax.jit(method.loss)(params, state, clips, jax.random.key(2), jnp.int32(0))
    assert {name[5:] for name in metrics if name.startswith("loss/")} == terms
    with pytest.raises(ValueError, match="sum of the losses' weights must be above 0"):
        ReleasedBOD(static_weight=0.0, dynamic_weight=0.0)


def test_more_clips_are_compared_in_all_pairs():
    method = ReleasedBOD(dim=5, clips=3, ridge=0.05, inner_steps=0).build(
        ENCODER, FRAMEWORK, TrainLength(10, 5)
    )
    clips = jax.random.normal(jax.random.key(0), (4, 3, 7, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    _, (_, metrics) = jax.jit(method.loss)(params, state, clips, jax.random.key(2), jnp.int32(0))
    frames = frames_in_training(
        {"params": params["network"], "batch_stats": state["stats"]},
        clips.reshape(-1, *clips.shape[2:]),
    )
    parts = koopman.split(frames, ridge=0.05)
    floor = 0.01 * jnp.linalg.norm(jnp.mean(frames, axis=1), axis=-1, keepdims=True)
    static = soft_normalize(parts.static, floor).reshape(4, 3, 5)
    pairs = [nt_xent(static[:, i], static[:, j], unit=False) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(metrics["loss/static"]) == pytest.approx(float(sum(pairs)) / 3, rel=1e-3)


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
