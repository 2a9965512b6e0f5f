"""What is embedded: the contract of a method, and how one is put together.

A method is a few pure functions; everything that lasts is in what they return. A new one says
which heads it wants, which slots it makes of their outputs, and lets `compose` do the rest.
"""

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vrl_jax.frameworks.base import FrameworkConfig, Pairs, Weights
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.network import Arrays, EncoderConfig, Outputs
from vrl_jax.types import Features, Slot, TrainLength, View

Tree = Any


class Inner(NamedTuple):
    """The lower level of a bi-level programme over the same weights.

    Attributes:
      loss: (params, state, clips, key, step) -> scalar.
      steps: gradient steps on fresh videos before each outer step.
      learning_rate: step -> the rate of the inner steps before that outer step.
      hypergradient: "none" takes the outer gradient where the inner steps end; "maml1" multiplies
        it by (I - learning_rate * H), "betty" by (I - H), H the inner loss's Hessian.
    """

    loss: Callable[..., Float[Array, ""]]
    steps: int
    learning_rate: Callable[[Int[Array, ""]], Float[Array, ""]]
    hypergradient: str


class Operators(NamedTuple):
    """Linear operators of clips, for the spectrum that a run records.

    Attributes:
      matrix: takes each frame vector of a clip to the next one, in the method's own coordinates.
      radius: eigenvalues of `matrix` at most this far from 1 count as static.
    """

    matrix: Float[Array, "*n m m"]
    radius: Float[Array, ""] | float


class Method(NamedTuple):
    """A self-supervised method as the train step sees it.

    Attributes:
      views: what the data must decode and augment.
      init: (key, clips f32[b v t h w 3]) -> (params, state).
      loss: (params, state, clips, key, step) -> (scalar, (aux, metrics)).
      update: (params, state, aux, step) -> (params, state): teachers, queues, statistics.
      encode: (params, state, clips f32[n t h w 3]) -> Features, with fixed statistics.
      encoder: (params, state) -> {"params": ..., "batch_stats": ...}, the variables of the encoder
        that is kept; a network without batch statistics has {} there.
      operators: (params, state, clips f32[n t h w 3]) -> Operators, with fixed statistics; None
        where the method fits none.
      inner: the lower level, or None.
    """

    views: tuple[View, ...]
    init: Callable[..., tuple[Tree, Tree]]
    loss: Callable[..., tuple[Float[Array, ""], tuple[Tree, dict[str, Float[Array, ""]]]]]
    update: Callable[..., tuple[Tree, Tree]]
    encode: Callable[..., Features]
    encoder: Callable[..., Tree]
    operators: Callable[..., Operators] | None = None
    inner: Inner | None = None

    @property
    def levels(self) -> int:
        """How many videos a step reads for each one that the upper level sees."""
        return 1 + (self.inner.steps if self.inner else 0)


@runtime_checkable
class MethodConfig(Protocol):
    """What a config names as method."""

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig, horizon: TrainLength
    ) -> Method:
        """Return the functions for this encoder and framework."""
        ...


class ExtraLosses(NamedTuple):
    """Losses of a method's own, beside the comparisons that its framework makes.

    Attributes:
      loss: (params, state, outputs, given, step) -> (scalar, metrics, aux); `params` are the
        network's, `given` is what `prepare` told beside the views.
      init: (key, videos per batch) -> state.
      update: (params, state, aux, step) -> (params, state), after the optimiser's step.
      hold: (params, step) -> params, some of them without gradient at that step.
    """

    loss: Callable[..., tuple[Float[Array, ""] | float, Arrays, Tree]] = (
        lambda params, state, outputs, given, step: (0.0, {}, {})
    )
    init: Callable[..., Tree] = lambda key, videos: {}
    update: Callable[..., tuple[Tree, Tree]] = lambda params, state, aux, step: (params, state)
    hold: Callable[..., Tree] = lambda params, step: params


def compose(
    *,
    network: nn.Module,
    framework: FrameworkConfig,
    views: tuple[View, ...],
    slots: Mapping[str, Slot],
    project: Callable[[Outputs], tuple[Arrays, Arrays]],
    horizon: TrainLength,
    pairs: Pairs | None = None,
    prepare: Callable[..., tuple[Float[Array, "b v t h w 3"], Tree]] | None = None,
    passes: tuple[tuple[int, ...], ...] | None = None,
    terms: ExtraLosses | None = None,
    operators: Callable[[Outputs], Operators] | None = None,
    inner: Inner | None = None,
) -> Method:
    """Put a method together from what is embedded and how embeddings are compared.

    Args:
      network: (clips f32[b v t h w 3], train, predict) -> Outputs, with a method `encode`; see
        `heads_on`.
      framework: how slots are compared.
      views: the views of a video that data must make.
      slots: what is compared, by name; there may be none.
      project: a network's outputs to the slots f32[b v d], and diagnostics to log.
      horizon: length of the run, for schedules.
      pairs: (query view, key view) to compare; by default all ordered pairs of `views`.
      prepare: (key, clips f32[b v ...]) -> (clips with further views made from them, anything that
        the method's own losses must know of it).
      passes: views that share batch statistics, in order of their numbers; by default all views
        do. Views after the last one named are for a teacher alone.
      terms: losses of the method's own.
      operators: a network's outputs to the operators of their clips, matrix f32[b v m m].
      inner: the lower level; its `loss` is given here as a function of outputs.

    Raises:
      ValueError: the framework wants queries of a view that is in no pass.
    """
    pairs = tuple(permutations(range(len(views)), 2)) if pairs is None else pairs
    compare = framework.build(slots, pairs, horizon)
    if passes is not None and not compare.queries <= {view for group in passes for view in group}:
        raise ValueError(
            f"{type(framework).__name__} has no teacher, so it must embed both views of a pair: "
            f"take method.symmetric=True, or MoCo or BYOL"
        )
    own = terms or ExtraLosses()
    prepare = prepare or (lambda key, clips: (clips, None))

    def embed(weights, clips):
        outputs, stats = _apply(network, weights, clips, predict=False)
        return project(outputs)[0], stats

    def init(key, clips):
        key_network, key_framework, key_own, key_views = jax.random.split(key, 4)
        one = prepare(key_views, clips[:1])[0]
        variables = network.init(key_network, one, False)
        weights = Weights(variables["params"], variables.get("batch_stats", {}))
        params, state = compare.init(key_framework, weights, clips.shape[0])
        kept = {"stats": weights.stats, "framework": state, "own": own.init(key_own, len(clips))}
        return {"network": weights.params, "framework": params}, kept

    def loss(params, state, clips, key, step):
        weights = Weights(own.hold(params["network"], step), state["stats"])
        clips, given = prepare(key, clips)
        outputs, stats = _in_passes(network, weights, clips, passes)
        queries, diagnostics = project(outputs)
        keys, aux = compare.keys(state["framework"], embed, clips)
        found = compare.compare(params["framework"], state["framework"], queries, keys, step)
        total, metrics, aux_own = own.loss(weights.params, state["own"], outputs, given, step)
        total += sum(slots[name].weight * term for name, term in found.items())
        found = {f"loss/{name}": term for name, term in found.items()}
        metrics = {**found, **metrics, **outputs.diagnostics, **diagnostics}
        return total, ({"stats": stats, "framework": aux, "own": aux_own}, metrics)

    def update(params, state, aux, step):
        weights = Weights(params["network"], aux["stats"])
        mine, kept_own = own.update(weights.params, state["own"], aux["own"], step)
        weights = weights._replace(params=mine)
        theirs, kept = compare.update(
            params["framework"], state["framework"], aux["framework"], weights, step
        )
        return (
            {"network": weights.params, "framework": theirs},
            {"stats": weights.stats, "framework": kept, "own": kept_own},
        )

    def variables(params, state):
        return {"params": params["network"], "batch_stats": state["stats"]}

    def encode(params, state, clips):
        return network.apply(variables(params, state), clips, method="encode")

    def encoder(params, state):
        stats = state["stats"].get("encoder", {})
        return {"params": params["network"]["encoder"], "batch_stats": stats}

    def clip_operators(params, state, clips):
        fitted = operators(network.apply(variables(params, state), clips[:, None], False))
        return fitted._replace(matrix=fitted.matrix[:, 0])

    def inner_loss(params, state, clips, key, step):
        weights = Weights(own.hold(params["network"], step), state["stats"])
        return inner.loss(_apply(network, weights, clips)[0])

    return Method(
        views=views,
        init=init,
        loss=loss,
        update=update,
        encode=encode,
        encoder=encoder,
        operators=clip_operators if operators else None,
        inner=inner._replace(loss=inner_loss) if inner else None,
    )


def require_simclr(method: str, framework: FrameworkConfig) -> None:
    """Raise `ValueError` where a method that compares within the batch is given a framework."""
    if not isinstance(framework, SimCLR):
        raise ValueError(
            f"{method} makes its own comparisons, within the batch: it takes SimCLR alone, got "
            f"{type(framework).__name__}"
        )


def with_reversed(key: jax.Array, clips: Float[Array, "b v t h w 3"]):
    """Add the first view played backwards, as one view more: see `compose`, `prepare`."""
    return jnp.concatenate([clips, clips[:, :1, ::-1]], axis=1), None


def _apply(network, weights, clips, predict=True):
    """Run every view of every video through the network as one batch of statistics."""
    variables = {"params": weights.params, "batch_stats": weights.stats}
    outputs, changed = network.apply(variables, clips, True, predict, mutable=["batch_stats"])
    return outputs, changed.get("batch_stats", {})


def _in_passes(network, weights, clips, passes):
    """Run groups of views one after the other, each a batch of statistics of its own."""
    if passes is None:
        return _apply(network, weights, clips)
    made = []
    for group in passes:
        outputs, stats = _apply(network, weights, clips[:, jnp.array(group)])
        weights = weights._replace(stats=stats)
        made.append(outputs)
    order = jnp.argsort(jnp.array([view for group in passes for view in group]))
    joined = [
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, order], *parts)
        for parts in zip(*((o.features, o.projected) for o in made), strict=True)
    ]
    return Outputs(*joined, made[0].diagnostics), weights.stats
