import ast
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax import frameworks
from vrl_jax.frameworks.base import ProjectionHead, Weights, cosine_momentum, ema_update
from vrl_jax.frameworks.byol import BYOL
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.frameworks.swav import SwAV
from vrl_jax.losses import info_nce, normalize, nt_xent, sinkhorn, swapped_prediction
from vrl_jax.types import Slot, TrainLength

PAIRS = ((0, 1), (1, 0))
HORIZON = TrainLength(steps=100, steps_per_epoch=10)
SLOTS = {"a": Slot(3, 0.2), "b": Slot(3, 0.5, unit=False)}


WEIGHTS = Weights({"w": np.zeros(2, np.float32)}, {"m": np.zeros(2, np.float32)})

contrast = jax.jit(nt_xent, static_argnames=("temperature", "unit"))
contrast_with_queue = jax.jit(info_nce, static_argnames=("temperature", "unit"))


def slots(rng, videos=4, views=2):
    return {name: rng.normal(size=(videos, views, 3)).astype(np.float32) for name in SLOTS}


def build(config, slots=SLOTS, pairs=PAIRS):
    """Return a framework, its comparison jitted, its parameters and its state."""
    framework = config.build(slots, pairs, HORIZON)
    made = jax.jit(framework.init, static_argnums=2)(jax.random.key(0), WEIGHTS, 4)
    return framework._replace(compare=jax.jit(framework.compare)), *jax.device_get(made)


@functools.partial(jax.jit, static_argnames="framework")
def push_jitted(framework, state, embeddings, step):
    def embed(weights, views):
        return {name: z[:, views[0]] for name, z in embeddings.items()}, {"m": jnp.ones(2)}

    count = next(iter(embeddings.values())).shape[1]
    keys, state = framework.keys(state, embed, jnp.arange(count)[None])
    weights = Weights({"w": jnp.ones(2)}, {"m": jnp.zeros(2)})
    return keys, framework.update({}, state, keys, weights, step)[1]


def push(framework, state, embeddings, step=0):
    """Return the keys of embeddings and the state after them, on the host."""
    return jax.device_get(push_jitted(framework, state, embeddings, np.int32(step)))


def test_simclr_compares_each_pair_of_views_once(rng):
    queries = slots(rng)
    framework, _, _ = build(SimCLR())
    got = framework.compare({}, {}, queries, None, np.int32(0))
    for name, slot in SLOTS.items():
        a, b = queries[name][:, 0], queries[name][:, 1]
        expected = contrast(a, b, temperature=slot.temperature, unit=slot.unit)
        assert float(got[name]) == pytest.approx(float(expected), rel=1e-6)


def test_further_negatives_count_in_their_slot_alone(rng):
    definitions = {"a": Slot(3, 0.2, negatives=(2,)), "b": Slot(3, 0.2)}
    embeddings = slots(rng, views=3)
    first, second, third = (embeddings["a"][:, view] for view in range(3))

    framework, _, _ = build(SimCLR(), definitions)
    got = framework.compare({}, {}, embeddings, None, np.int32(0))
    expected = contrast(first, second, temperature=0.2, negatives=third)
    assert float(got["a"]) == pytest.approx(float(expected), rel=1e-6)
    expected = contrast(embeddings["b"][:, 0], embeddings["b"][:, 1], temperature=0.2)
    assert float(got["b"]) == pytest.approx(float(expected), rel=1e-6)

    framework, _, state = build(MoCo(queue=16, momentum=0.5), definitions)
    keys, after = push(framework, state, embeddings)
    assert after["pushed"] == 8  # what is nobody's partner stays out of the queue
    got = framework.compare({}, after, embeddings, keys, np.int32(9))
    queue = np.concatenate([third, embeddings["a"][:, :2].reshape(-1, 3)])
    expected = [
        contrast_with_queue(embeddings["a"][:, i], embeddings["a"][:, j], queue, temperature=0.2)
        for i, j in PAIRS
    ]
    assert float(got["a"]) == pytest.approx(float(np.mean(expected)), rel=1e-5)


@functools.cache
def moco(queue=16, momentum=0.5):
    framework, _, state = build(MoCo(queue=queue, momentum=momentum))
    return framework, state


def test_moco_queues_the_newest_keys_and_wraps(rng):
    framework, state = moco()
    history = [slots(rng) for _ in range(5)]
    for embeddings in history:
        keys, state = push(framework, state, embeddings)
    assert np.allclose(np.linalg.norm(keys["a"], axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(keys["b"], history[-1]["b"])  # its length was set on purpose
    queue = state["queue"]["b"]
    np.testing.assert_array_equal(queue[:8], history[4]["b"].reshape(-1, 3))
    np.testing.assert_array_equal(queue[8:], history[3]["b"].reshape(-1, 3))


def test_moco_counts_only_what_was_filled(rng):
    framework, state = moco()
    queries, embeddings = slots(rng), slots(rng)
    keys, after = push(framework, state, embeddings)
    step = np.int32(9)
    empty = framework.compare({}, state, queries, keys, step)
    assert all(float(loss) == 0 for loss in empty.values())
    losses = framework.compare({}, after, queries, keys, step)
    both = [
        contrast_with_queue(
            queries["b"][:, i],
            keys["b"][:, j],
            embeddings["b"].reshape(-1, 3),
            temperature=0.5,
            unit=False,
        )
        for i, j in PAIRS
    ]
    assert float(losses["b"]) == pytest.approx(float(np.mean(both)), rel=1e-5)
    for _ in range(40):
        _, after = push(framework, after, embeddings)
    assert 16 <= int(after["pushed"]) < 32


def test_moco_teacher_follows_with_its_momentum(rng):
    framework, state = moco()
    _, state = push(framework, state, slots(rng))
    np.testing.assert_allclose(state["teacher"]["params"]["w"], 0.5)
    _, state = push(framework, state, slots(rng), step=100)
    np.testing.assert_allclose(state["teacher"]["params"]["w"], 0.5)  # momentum 1 at the end
    np.testing.assert_array_equal(state["teacher"]["stats"]["m"], 1.0)


def test_moco_asked_one_way_makes_keys_of_the_second_view_alone(rng):
    framework, _, state = build(MoCo(queue=8, anneal=False, momentum=0.25), pairs=((0, 1),))
    embeddings = slots(rng)
    keys, state = push(framework, state, embeddings, step=100)
    assert keys["b"].shape == (4, 1, 3) and int(state["pushed"]) == 4
    np.testing.assert_array_equal(state["queue"]["b"][:4], embeddings["b"][:, 1])
    np.testing.assert_allclose(state["teacher"]["params"]["w"], 0.75)  # the same at the end
    got = framework.compare({}, state, embeddings, keys, np.int32(9))["b"]
    settings = {"temperature": 0.5, "unit": False}
    expected = contrast_with_queue(
        embeddings["b"][:, 0], embeddings["b"][:, 1], embeddings["b"][:, 1], **settings
    )
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", [functools.partial(MoCo, queue=16), BYOL])
def test_summed_pairs_count_twice_for_two_clips(rng, kind):
    queries, embeddings, losses = slots(rng), slots(rng), []
    for sums in (False, True):
        framework, params, state = build(kind(sum_pairs=sums))
        keys, after = push(framework, state, embeddings)
        losses.append(framework.compare(params, after, queries, keys, np.int32(9)))
    for name in SLOTS:
        assert float(losses[1][name]) == pytest.approx(2 * float(losses[0][name]), rel=1e-6)


def test_byol_compares_predictions_with_the_teacher_both_ways(rng):
    framework, params, state = build(BYOL(momentum=0.5))
    queries, embeddings = slots(rng), slots(rng)
    keys, after = push(framework, state, embeddings)
    got = framework.compare(params, state, queries, keys, np.int32(0))
    for name in SLOTS:
        q, k = np.array(queries[name]), np.array(embeddings[name])
        if SLOTS[name].unit:
            q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
        expected = [np.mean(np.sum((q[:, i] - k[:, j]) ** 2, -1)) for i, j in PAIRS]
        assert float(got[name]) == pytest.approx(sum(expected) / 2, rel=1e-4)
    np.testing.assert_allclose(after["teacher"]["params"]["w"], 0.5)
    np.testing.assert_array_equal(after["teacher"]["stats"]["m"], 1.0)


def test_swav_predicts_each_view_s_assignment_from_the_other(rng):
    framework, params, state = build(SwAV(prototypes=6))
    queries = slots(rng)
    got = framework.compare(params, state, queries, None, np.int32(99))

    @functools.partial(jax.jit, static_argnames="slot")
    def expected(slot, queries, prototypes):
        z = normalize(queries) if slot.unit else queries
        scores = [z[:, view] @ prototypes.T for view in (0, 1)]
        losses = [
            swapped_prediction(scores[i], sinkhorn(scores[j]), temperature=slot.temperature)
            for i, j in PAIRS
        ]
        return sum(losses) / 2

    for name, slot in SLOTS.items():
        value = expected(slot, queries[name], params[name])
        assert float(got[name]) == pytest.approx(float(value), rel=1e-4)


def test_swav_keeps_unit_prototypes_and_freezes_them_in_the_first_epoch(rng):
    framework, params, state = build(SwAV(prototypes=6))
    assert not np.allclose(params["a"], params["b"])
    queries = slots(rng)

    @jax.jit
    @jax.grad
    def slope(params, step):
        return sum(framework.compare(params, state, queries, None, step).values())

    early, late = slope(params, np.int32(9)), slope(params, np.int32(10))
    assert not any(np.any(g) for g in early.values())
    assert all(np.any(g) for g in late.values())
    moved = {name: 3 * rows + np.float32(0.1) for name, rows in params.items()}
    unit = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in moved.items()}
    update = jax.jit(framework.update)
    for step, expected in ((9, params), (10, unit)):
        updated, state = jax.device_get(update(moved, state, {}, None, np.int32(step)))
        for name, rows in expected.items():
            np.testing.assert_allclose(updated[name], rows, atol=1e-6)


@pytest.mark.parametrize("framework", [BYOL(), SwAV()], ids=lambda f: type(f).__name__)
def test_frameworks_without_negatives_refuse_them(framework):
    with pytest.raises(ValueError, match="'a' has negatives, which .* use SimCLR or MoCo"):
        framework.build({"a": Slot(3, negatives=(2,))}, PAIRS, HORIZON)


def test_moco_refuses_a_queue_that_a_batch_does_not_divide():
    with pytest.raises(ValueError, match="multiple of the 8 keys per step .* got 12"):
        moco(queue=12)


def test_momentum_rises_along_a_half_cosine():
    momentum = jax.jit(cosine_momentum, static_argnums=(1, 2))
    got = [float(momentum(np.int32(k), 0.9, 100)) for k in (0, 25, 50, 100, 150)]
    expected = [1 - 0.1 * (np.cos(np.pi * p) + 1) / 2 for p in (0, 0.25, 0.5, 1, 1)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    one, zero = ({"w": np.full(1, x, np.float32)} for x in (1, 0))
    moved = jax.jit(ema_update)(one, zero, np.float32(0.75))
    np.testing.assert_allclose(moved["w"], 0.75)


@pytest.mark.parametrize("layers, norm", [(1, True), (2, True), (3, False)])
def test_head_has_the_stated_layers(rng, layers, norm):
    head = ProjectionHead(hidden=7, dim=5, layers=layers, norm=norm)
    x = rng.normal(size=(4, 6, 3)).astype(np.float32)
    (y, variables) = jax.eval_shape(
        lambda key, x: head.init_with_output(key, x, False), jax.random.key(0), x
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(variables["params"])]
    assert sum(len(shape) == 2 for shape in shapes) == layers
    assert ("batch_stats" in variables) == (norm and layers > 1)
    assert y.shape == (4, 6, 5)


def test_a_head_starts_as_the_studies_and_may_lack_its_last_bias():
    def kernels(**settings):
        head = ProjectionHead(hidden=2048, dim=128, norm=False, **settings)
        variables = jax.jit(head.init, static_argnums=2)(jax.random.key(0), np.ones((1, 8)), False)
        return variables["params"]

    last = kernels(fan_in=True, last_bias=False)["Dense_1"]
    assert set(last) == {"kernel"}
    assert float(last["kernel"].std()) == pytest.approx(0.022, abs=5e-4)  # 2048 inputs alone
    both = kernels()["Dense_1"]
    assert float(both["kernel"].std()) == pytest.approx(0.030, abs=5e-4) and "bias" in both


@pytest.mark.parametrize("mean", [0.0, 100.0, 1000.0])
def test_a_head_normalises_channels_whose_mean_is_large_beside_their_spread(rng, mean):
    x = (mean + rng.normal(size=(64, 3))).astype(np.float32)
    head = ProjectionHead(hidden=3, dim=3)
    eye = {"kernel": jnp.eye(3)}
    norm = {"scale": jnp.ones(3), "bias": jnp.full(3, 9.0)}  # above the ReLU
    params = {"Dense_0": eye, "BatchNorm_0": norm, "Dense_1": {**eye, "bias": jnp.full(3, -9.0)}}
    stats = {"BatchNorm_0": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    variables = {"params": params, "batch_stats": stats}
    got, state = head.apply(variables, jnp.asarray(x), True, mutable=["batch_stats"])
    exact = x.astype(np.float64)
    variance = exact.var(0)
    np.testing.assert_allclose(got, (exact - exact.mean(0)) / np.sqrt(variance + 1e-5), atol=1e-3)
    running = state["batch_stats"]["BatchNorm_0"]["var"]
    np.testing.assert_allclose(running, 0.9 + 0.1 * variance, rtol=1e-4)


def test_norms_outside_the_encoders_take_two_passes():
    folder = pathlib.Path(frameworks.__file__).parents[1]
    calls = [
        ast.unparse(node)
        for path in folder.rglob("*.py")
        if path.parent.name != "encoders"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and {"nn.BatchNorm", "nn.LayerNorm"}
        & {ast.unparse(node.func), *map(ast.unparse, node.args)}
    ]
    assert len(calls) >= 4
    for call in calls:
        assert "use_fast_variance=False" in call, call
