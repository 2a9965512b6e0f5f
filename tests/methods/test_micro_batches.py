"""Micro-batches: the step of the whole batch, which holds the views of a few videos at a time."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from tests.methods.test_contract import (
    AUGMENT,
    EVERY_ONE,
    HORIZON,
    mesh,
    place,
    small,
    takes_negatives,
)
from vrl_jax.augment.clip_views import make_views
from vrl_jax.encoders.layers import pool_features
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.losses import nt_xent
from vrl_jax.methods.base import Inner, Method
from vrl_jax.methods.instance import Instance
from vrl_jax.methods.micro_batches import MicroBatches, embed_videos
from vrl_jax.train import sharding
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_step import init_state, make_step, view_keys
from vrl_jax.types import View

VIDEOS, MICRO, STEP = 16, 4, 9  # a late step: queues are in use, nothing is frozen or yet to begin
SHAPE = (2, 6, 12, 12, 3)  # clips of a video
OPTIMIZER = SGD(learning_rate=0.05, warmup=0.0).build(VIDEOS, 100)


class PlainNet(nn.Module):
    """Two dense maps of pixels, quick to compile."""

    @nn.compact
    def __call__(self, clips, train):
        first = nn.tanh(nn.Dense(5)(clips[:, :, ::4, ::4]))
        return pool_features([first, nn.tanh(nn.Dense(6)(first))])


@dataclass(frozen=True)
class Plain:
    """An encoder without batch statistics."""

    dim: int = 6

    def module(self):
        return PlainNet()


@pytest.fixture
def fixed_statistics(monkeypatch):
    """Let the heads normalise with running statistics, so that videos do not affect each other."""
    norm = nn.BatchNorm
    monkeypatch.setattr(nn, "BatchNorm", lambda running, **settings: norm(True, **settings))


def build(kind, framework, **settings):
    framework = framework and small(framework)
    negatives = framework is None or takes_negatives(framework)
    without = {} if negatives else {"reversed_negatives": False}
    return small(kind, **without, **settings).build(Plain(), framework, HORIZON)


def start(method):
    clips = jax.ShapeDtypeStruct((VIDEOS, *SHAPE), jnp.uint8)
    state = jax.device_get(init_state(method, OPTIMIZER, clips, AUGMENT, 0, mesh(1)))
    return state._replace(step=np.int32(STEP))


def draw(method):
    rows = (VIDEOS * method.levels, *SHAPE)
    return np.random.default_rng(3).integers(0, 256, rows, np.uint8)


def take(method, state, microbatch, count=1):
    """Return the state and the metrics after a step, on the host, and the traced step."""
    step = make_step(method, OPTIMIZER, AUGMENT, 0, mesh(count), microbatch)
    arguments = place(state, count), sharding.shard_rows(mesh(count), draw(method))
    traced = step.trace(*arguments)
    return jax.device_get(traced.lower().compile()(*arguments)), traced


def float_sizes(jaxpr):
    """Yield the number of elements of every floating-point result in a program."""
    for equation in jaxpr.eqns:
        for x in equation.outvars:
            if jnp.issubdtype(x.aval.dtype, jnp.floating):
                yield x.aval.size
        for leaf in jax.tree.leaves(
            [*equation.params.values()], is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(leaf, ClosedJaxpr | Jaxpr):
                yield from float_sizes(leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf)


def assert_equal(whole, split):
    """Assert that two steps agree to 1e-5, parameters and state relative to their norms."""
    (whole, metrics), (split, others) = whole, split
    for name in ("params", "state"):
        x, y = (jax.tree.leaves(getattr(each, name)) for each in (whole, split))
        gap = np.sqrt(sum(np.sum(np.square(a - b)) for a, b in zip(x, y, strict=True)))
        assert gap <= 1e-5 * np.sqrt(sum(np.sum(np.square(a)) for a in x)), name
    assert metrics.keys() == others.keys()
    for name, value in metrics.items():  # the fit's condition magnifies rounding in diagnostics
        rel = 1e-2 if name.startswith("koopman/") else 1e-4
        assert others[name] == pytest.approx(value, rel=rel, abs=1e-5), name


def pair(method, framework):
    """Return a parameter; all are slow but the baseline with a teacher and a queue."""
    name = f"{method.__name__}-{framework.__name__ if framework else None}"
    marks = [] if (method, framework) == (Instance, MoCo) else [pytest.mark.slow]
    return pytest.param(method, framework, id=name, marks=marks)


@pytest.mark.parametrize("kind, framework", [pair(*each) for each in EVERY_ONE])
def test_without_batch_statistics_a_step_is_that_of_the_whole_batch(
    kind, framework, fixed_statistics
):
    # A large ridge: at 0.1 the fit to clips of noise magnifies rounding, to 1.4e-5.
    method = build(kind, framework, hypergradient="maml1", ridge=1.0)
    state = start(method)
    (whole, traced), (split, traced_split) = (take(method, state, size) for size in (0, MICRO))
    assert_equal(whole, split)
    views = VIDEOS * len(method.views) * 6 * AUGMENT.size**2 * 3
    largest, largest_split = (max(float_sizes(x.jaxpr.jaxpr)) for x in (traced, traced_split))
    assert largest_split < views <= largest


@pytest.mark.parametrize("hypergradient", ["maml1", pytest.param("none", marks=pytest.mark.slow)])
def test_both_levels_see_all_of_their_videos_and_no_others(hypergradient):
    """On eight devices; the losses are not sums over videos, and weigh each by its row."""

    def loss(params, state, clips, key, step):
        weights = jnp.arange(1.0, 1 + len(clips))

        def embed(carry, clips, weights):
            z = jnp.tanh(jnp.einsum("bvthwc,c->b", clips, params) / 100)
            return carry + len(clips), weights * z

        count, z = embed_videos(embed, 0, clips, weights)
        return jnp.prod(1 + z / 20), (count, {})

    method = Method(
        views=(View(0), View(1)),
        init=lambda key, clips: (jnp.array([0.3, -0.2, 0.1]), {"videos": jnp.int32(0)}),
        loss=loss,
        update=lambda params, state, count, step: (params, {"videos": jnp.int32(count)}),
        encode=None,
        encoder=None,
        inner=Inner(lambda *args: loss(*args)[0], 2, lambda step: 0.1, hypergradient),
    )
    state = start(method)
    (whole, metrics), _ = take(method, state, 0)
    (split, others), _ = take(method, state, 8, count=8)
    assert whole.state == split.state == {"videos": VIDEOS}
    for name in ("loss", "inner/forecast", "norm/gradient"):
        assert others[name] == pytest.approx(metrics[name], rel=1e-5), name
    np.testing.assert_allclose(split.params, whole.params, rtol=1e-5)
    assert np.abs(whole.params - state.params).max() > 1e-3


def test_statistics_are_those_of_a_micro_batch_and_move_once_for_each():
    """On eight devices, against a network that is run on explicit groups of videos."""
    encoder, framework, size = Tiny((4, 6), (2, 2), conv="native"), SimCLR(layers=1), 8
    method = Instance(dim=5).build(encoder, framework, HORIZON)
    state = start(method)
    (after, metrics), _ = take(method, state, size, count=8)

    @jax.jit
    def by_hand(network, stats, clips):
        views = make_views(view_keys(0, STEP, 1)[0], clips, method.views, AUGMENT)
        z, count = jnp.zeros((VIDEOS, 2, 5)), VIDEOS // size
        for i in range(count):
            group = views[i::count].reshape(-1, *views.shape[2:])
            variables = {"params": network["encoder"], "batch_stats": stats}
            features, changed = encoder.module().apply(
                variables, group, True, mutable=["batch_stats"]
            )
            stats = changed["batch_stats"]
            head = {"params": network["heads_clip"]}
            embedded = framework.head(5).apply(head, features.clip, True)
            z = z.at[i::count].set(embedded.reshape(-1, 2, 5))
        return nt_xent(z[:, 0], z[:, 1]), stats

    loss, stats = by_hand(state.params["network"], state.state["stats"]["encoder"], draw(method))
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        after.state["stats"]["encoder"],
        jax.device_get(stats),
    )


def test_what_is_no_array_of_videos_is_refused():
    clips = MicroBatches(lambda number: jnp.zeros((2, 1, 1, 1, 1, 3)), 3, 2)
    with pytest.raises(ValueError, match=r"begin with its 2 videos, but \['mean'\] is \(\)"):
        embed_videos(lambda carry, x, _: (carry, {"mean": x.mean()}), (), clips)
    with pytest.raises(AttributeError, match="no 'reshape': .* `embed_videos`"):
        clips.reshape(-1)
    assert len(clips) == 6
