import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.losses import normalize, nt_xent, shuffle_rank
from vrl_jax.methods.dualvar import DualVar, insert_shuffled, restore_order, shuffle_segments
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6), strides=(2, 2), conv="native")
SIMCLR = SimCLR(hidden=8, layers=2, norm=False)


def build(framework=SIMCLR, frames=6, **settings):
    """Return a method with jitted functions, its parameters and state, and clips."""
    method = DualVar(dim=5, segment_dim=3, **settings).build(ENCODER, framework, TrainLength(10, 5))
    clips = np.random.default_rng(0).normal(size=(4, 3, frames, 8, 8, 3)).astype(np.float32)
    params, state = jax.jit(method.init)(jax.random.key(1), clips)
    jitted = method._replace(loss=jax.jit(method.loss), update=jax.jit(method.update))
    return jitted, params, state, clips


def loss(method, params, state, clips):
    value, (_, metrics) = jax.device_get(
        method.loss(params, state, clips, jax.random.key(2), np.int32(0))
    )
    return value, metrics


@pytest.mark.parametrize("segments", [2, 4])
def test_restoring_undoes_every_order(rng, segments):
    order = np.array(list(itertools.permutations(range(segments))))
    slots = rng.normal(size=(len(order), segments, 3)).astype(np.float32)
    shuffled = np.take_along_axis(slots, order[..., None], axis=1)
    np.testing.assert_array_equal(jax.jit(restore_order)(shuffled, order), slots)


def test_segments_are_played_in_the_stated_order():
    frames = np.broadcast_to(np.arange(6.0)[None, :, None, None, None], (1, 6, 2, 2, 3))
    got = np.array(jax.jit(shuffle_segments)(frames, np.array([[2, 0, 1]])))
    assert got[0, :, 0, 0, 0].tolist() == [4, 5, 0, 1, 2, 3]


def test_the_orders_are_uniform_and_may_exclude_the_true_one():
    clips = np.zeros((600, 3, 4, 1, 1, 3), np.float32)
    for allowed, share in ((True, 0.5), (False, 0.0)):
        method = DualVar(allow_identity=allowed)
        order = jax.jit(method._draw, static_argnums=1)(jax.random.key(0), len(clips))
        assert jax.eval_shape(insert_shuffled, clips, order).shape[1] == 4
        identity = np.mean(np.all(np.array(order) == np.arange(2), axis=1))
        assert identity == pytest.approx(share, abs=0.07)


def test_the_three_terms_are_what_they_are_said_to_be():
    method, params, state, clips = build()
    total, metrics = loss(method, params, state, clips)

    def embed(params, state, views):
        flat = views.reshape(-1, *views.shape[2:])
        feature, _ = ENCODER.module().apply(
            {"params": params["network"]["encoder"], "batch_stats": state["stats"]["encoder"]},
            flat,
            True,
            mutable=["batch_stats"],
        )
        outputs = {
            name: SIMCLR.head(dim)
            .apply({"params": params["network"][f"heads_{name}"]}, feature.clip, True)
            .reshape(*views.shape[:2], -1)
            for name, dim in (("clip", 5), ("segments", 6))
        }
        return outputs["clip"], normalize(outputs["segments"].reshape(*views.shape[:2], 2, 3))

    @jax.jit
    def terms(params, state, clips):
        order = DualVar()._draw(jax.random.key(2), len(clips))
        shuffled = shuffle_segments(clips[:, 1], order)
        clip, segments = embed(params, state, clips)  # one batch of statistics
        _, single = embed(params, state, shuffled[:, None])  # another
        restored = restore_order(single[:, 0], order)
        return {
            "loss/clip": nt_xent(clip[:, 0], clip[:, 2], temperature=0.07),
            "loss/coherence": nt_xent(
                segments[:, 0].mean(1), segments[:, 2].mean(1), temperature=0.07, unit=False
            ),
            "loss/shuffle_rank": sum(shuffle_rank(segments[:, v], restored) for v in (0, 1)) / 2,
        }

    expected = jax.device_get(terms(params, state, clips))
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3), name
    assert total == pytest.approx(sum(expected.values()), rel=1e-3)


contrast = jax.jit(functools.partial(nt_xent, temperature=0.07, unit=False))
rank = jax.jit(shuffle_rank)


def slots_of_cosine(rho):
    return np.array([[1.0, 0.0], [rho, math.sqrt(1 - rho**2)]], np.float32)


def coherence(rho, negatives):
    """Return the coherence loss of identical views whose two slots have cosine `rho`."""
    videos = np.kron(np.eye(1 + negatives // 2), slots_of_cosine(rho).mean(0)).astype(np.float32)
    return float(contrast(videos, videos))


def test_the_mean_of_slots_has_the_known_values():
    assert coherence(0.0, 2) == pytest.approx(1.5797322e-03, rel=1e-3)
    assert coherence(1.0, 2) == pytest.approx(1.2497491e-06, abs=2e-7)
    for rho, expected, ranked in (
        (1, 7.87e-05, 0.6931),
        (0.75, 4.69e-04, 6.72e-03),
        (0, 9.49e-02, 2.06e-09),
    ):
        assert coherence(rho, 126) == pytest.approx(expected, rel=5e-3)
        slots = slots_of_cosine(rho)[None]
        assert float(rank(slots, slots)) == pytest.approx(ranked, rel=5e-3)


def test_the_mean_of_all_pairs_of_slots_is_the_product_of_means(rng):
    a, b = rng.normal(size=(2, 3, 4))
    pairs = np.mean([x @ y for x in a for y in b])
    assert a.mean(0) @ b.mean(0) == pytest.approx(pairs, rel=1e-6)


def test_a_still_video_sits_at_the_unsolvable_optimum():
    """Shuffling a still clip changes nothing, so the rank loss has a floor above zero."""

    def mean_over_orders(rho):
        slots = slots_of_cosine(rho)[None]
        true, swapped = slots, slots[:, ::-1]  # what restoring makes of either order
        return (float(rank(slots, true)) + float(rank(slots, swapped))) / 2

    best = 1 - 0.05 * math.log(2)
    assert mean_over_orders(best) == pytest.approx(0.6506724, rel=1e-5)
    assert all(mean_over_orders(best + d) > 0.6506724 for d in (-0.01, -0.001, 0.001, 0.01))


def rank_loss_over_training(*videos, steps=100):
    """Train on the rank loss alone, over eight draws of the orders; return each video's course."""
    method, start, state, _ = build(
        clip_weight=0.0, coherence_weight=0.0, references=(0.0, 1.0), rank_cap=0.0
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(8))

    def mean(params, clips):
        return jnp.mean(
            jax.vmap(lambda key: method.loss(params, state, clips, key, jnp.int32(0))[0])(keys)
        )

    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, opt_state, clips):
        value, slope = jax.value_and_grad(mean)(params, clips)
        updates, opt_state = optimizer.update(slope, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    courses = []
    for clips in videos:
        params, opt_state, course = start, optimizer.init(start), []
        for _ in range(steps):
            params, opt_state, value = step(params, opt_state, clips)
            course.append(float(value))
        courses.append(np.array(course))
    orders = np.stack([np.array(DualVar()._draw(key, len(videos[0]))) for key in keys])
    return courses, np.mean(orders[:, :, 0] == 1, axis=0)


def floor(swapped):
    """Return the least loss of a still video of whose draws that share is swapped, cosines free."""
    x = np.linspace(0, 10, 10001)  # (1 - cosine) / temperature
    true, wrong = np.log1p(np.exp(-x)), (math.log(2) + np.log1p(np.exp(x))) / 2
    return np.min((1 - swapped) * true + swapped * wrong)


@pytest.mark.slow
def test_training_solves_moving_videos_and_never_still_ones():
    clips = jax.random.normal(jax.random.key(0), (4, 1, 6, 8, 8, 3))
    moving = jnp.repeat(clips, 3, axis=1)  # three equal views: every pass has the same statistics
    still = jnp.repeat(moving[:, :, :1], 6, axis=2)
    (unsolvable, solvable), swapped = rank_loss_over_training(still, moving)
    assert floor(0.5) == pytest.approx(0.6506724, rel=1e-6)
    least = np.mean([floor(share) for share in swapped])
    assert unsolvable.min() >= least * (1 - 1e-5)
    assert unsolvable[-1] <= least * 1.02
    assert solvable[-1] < 0.3


def test_the_moco_variant_asks_one_way():
    method, params, state, clips = build(
        MoCo(queue=8, hidden=8, layers=2), symmetric=False, rank_cap=0.0
    )
    _, (aux, metrics) = method.loss(params, state, clips, jax.random.key(2), np.int32(0))
    assert aux["keys"]["clip"].shape == (4, 1, 5)
    _, state = method.update(params, state, aux, np.int32(0))
    assert int(state["framework"]["pushed"]) == 4
    assert np.isfinite([float(x) for x in metrics.values()]).all()


def test_terms_can_be_left_out():
    method, params, state, clips = build(coherence_weight=0.0)
    total, metrics = loss(method, params, state, clips)
    assert "loss/coherence" not in metrics
    assert total == pytest.approx(metrics["loss/clip"] + metrics["loss/shuffle_rank"], rel=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="must embed both views of a pair: use method.symmetric"):
        build(symmetric=False)
    with pytest.raises(ValueError, match="frames must be a multiple of method.segments=2, got 5"):
        build(frames=5)
    with pytest.raises(ValueError, match="segments must be at least 2, got 1"):
        DualVar(segments=1)
