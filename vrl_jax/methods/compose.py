"""A method composed of a network, the slots that a framework compares, and extra losses."""

from collections.abc import Mapping
from itertools import permutations
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vrl_jax.frameworks.base import FrameworkConfig, Pairs, Weights, no_comparison
from vrl_jax.methods.base import ExtraLosses, Inner, Method, Operators, Tree
from vrl_jax.methods.network import Arrays, Outputs
from vrl_jax.types import Slot, TrainLength, View


@runtime_checkable
class ProjectFn(Protocol):
    """Maps a network's outputs to slots."""

    def __call__(self, outputs: Outputs) -> tuple[Arrays, Arrays]:
        """Return the slots by name, f32[b v d], and diagnostics to log, by name."""
        ...


@runtime_checkable
class PrepareFn(Protocol):
    """Derives further views from the augmented ones."""

    def __call__(
        self, key: PRNGKeyArray, clips: Float[Array, "b v t h w 3"]
    ) -> tuple[Float[Array, "b w t h w 3"], Tree]:
        """Return all views, and a context for the extra losses (None where there is none)."""
        ...


@runtime_checkable
class FitOperatorsFn(Protocol):
    """Fits operators to a network's outputs."""

    def __call__(self, outputs: Outputs) -> Operators:
        """Return an operator for each view, matrix f32[b v m m]."""
        ...


def no_slots(outputs: Outputs) -> tuple[Arrays, Arrays]:
    """Return no slots and no diagnostics: see `ProjectFn`."""
    return {}, {}


def keep_views(key: PRNGKeyArray, clips: Float[Array, "b v t h w 3"]):
    """Return the views as they are, without context: see `PrepareFn`."""
    return clips, None


def append_reversed(key: PRNGKeyArray, clips: Float[Array, "b v t h w 3"]):
    """Append the first view played backwards as one more view: see `PrepareFn`."""
    return jnp.concatenate([clips, clips[:, :1, ::-1]], axis=1), None


def compose(
    *,
    network: nn.Module,
    views: tuple[View, ...],
    horizon: TrainLength,
    framework: FrameworkConfig | None = None,
    slots: Mapping[str, Slot] | None = None,
    project: ProjectFn = no_slots,
    pairs: Pairs | None = None,
    prepare: PrepareFn = keep_views,
    passes: tuple[tuple[int, ...], ...] | None = None,
    terms: ExtraLosses | None = None,
    operators: FitOperatorsFn | None = None,
    inner: Inner | None = None,
) -> Method:
    """Compose a method of what is embedded and how embeddings are compared.

    Parameters are `{"network": ..., "framework": ...}`, the state is `{"stats": ..., "framework":
    ..., "losses": ...}`.

    Args:
      network: (clips f32[b v t h w 3], train, predict) -> Outputs, with a method `encode` and a
        submodule `encoder`; see `attach_heads`.
      views: the views of a video that data must decode and augment.
      horizon: length of the run, for schedules.
      framework: compares the slots; None where the method makes its own comparisons in `terms`.
      slots: the embeddings that the framework compares, by name.
      project: maps the network's outputs to the slots.
      pairs: (query view, key view) to compare; by default all ordered pairs of `views`.
      prepare: derives further views from the augmented ones.
      passes: views that share batch statistics, by number, in the order of the passes; by default
        all views share them. The learning side embeds only views that are in a pass.
      terms: the method's own losses.
      operators: fits the operators whose spectrum a run records.
      inner: the lower level; its `loss` here takes the network's outputs alone.

    Raises:
      ValueError: slots without a framework, or a framework whose queries are in no pass.
    """
    pairs = tuple(permutations(range(len(views)), 2)) if pairs is None else pairs
    slots, terms = slots or {}, terms or ExtraLosses()
    if slots and framework is None:
        raise ValueError(f"slots must be empty without a framework, got {', '.join(slots)}")
    comparison = framework.build(slots, pairs, horizon) if framework else no_comparison()
    if passes is not None and not comparison.queries <= {v for group in passes for v in group}:
        raise ValueError(
            f"{type(framework).__name__} has no teacher, so it must embed both views of a pair: "
            f"use method.symmetric=True, or MoCo or BYOL"
        )

    def embed(weights, clips):
        outputs, stats = _apply(network, weights, clips, predict=False)
        return project(outputs)[0], stats

    def init(key, clips):
        key_network, key_framework, key_losses, key_views = jax.random.split(key, 4)
        first = prepare(key_views, clips[:1])[0]
        variables = network.init(key_network, first, False)
        weights = Weights(variables["params"], variables.get("batch_stats", {}))
        params, compared = comparison.init(key_framework, weights, len(clips))
        extra = terms.init(key_losses, len(clips))
        state = {"stats": weights.stats, "framework": compared, "losses": extra}
        return {"network": weights.params, "framework": params}, state

    def loss(params, state, clips, key, step):
        weights = Weights(terms.freeze(params["network"], step), state["stats"])
        clips, context = prepare(key, clips)
        outputs, stats = _in_passes(network, weights, clips, passes)
        queries, diagnostics = project(outputs)
        keys, compared = comparison.keys(state["framework"], embed, clips)
        losses = comparison.compare(params["framework"], state["framework"], queries, keys, step)
        key_losses = jax.random.fold_in(key, 1)  # `key` itself draws the views
        total, metrics, extra = terms.loss(
            weights.params, state["losses"], outputs, context, key_losses, step
        )
        total += sum(slots[name].weight * value for name, value in losses.items())
        losses = {f"loss/{name}": value for name, value in losses.items()}
        metrics = {**losses, **metrics, **outputs.diagnostics, **diagnostics}
        return total, ({"stats": stats, "framework": compared, "losses": extra}, metrics)

    def update(params, state, aux, step):
        network_params, extra = terms.update(
            params["network"], state["losses"], aux["losses"], step
        )
        weights = Weights(network_params, aux["stats"])
        framework_params, compared = comparison.update(
            params["framework"], state["framework"], aux["framework"], weights, step
        )
        return (
            {"network": network_params, "framework": framework_params},
            {"stats": aux["stats"], "framework": compared, "losses": extra},
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
        weights = Weights(terms.freeze(params["network"], step), state["stats"])
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


def _apply(network, weights, clips, predict=True):
    """Run all views of all videos through the network as one batch of statistics."""
    variables = {"params": weights.params, "batch_stats": weights.stats}
    outputs, changed = network.apply(variables, clips, True, predict, mutable=["batch_stats"])
    return outputs, changed.get("batch_stats", {})


def _in_passes(network, weights, clips, passes):
    """Run groups of views one after the other, each as a batch of statistics of its own."""
    if passes is None:
        return _apply(network, weights, clips)
    results = []
    for group in passes:
        outputs, stats = _apply(network, weights, clips[:, jnp.array(group)])
        weights = weights._replace(stats=stats)
        results.append(outputs)
    order = jnp.argsort(jnp.array([view for group in passes for view in group]))
    joined = [
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, order], *parts)
        for parts in zip(*((o.features, o.projected) for o in results), strict=True)
    ]
    return Outputs(*joined, results[0].diagnostics), weights.stats
