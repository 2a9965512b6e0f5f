"""A method composed of a network, the slots that a framework compares, and extra losses."""

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vrl_jax.frameworks.base import FrameworkConfig, Pairs, Weights, no_comparison
from vrl_jax.methods.base import ExtraLosses, Inner, Method, Operators, Tree
from vrl_jax.methods.micro_batches import embed_videos
from vrl_jax.methods.network import Arrays, Outputs
from vrl_jax.types import Slot, TrainLength, View


@runtime_checkable
class ProjectFn(Protocol):
    """Maps a network's outputs to slots."""

    def __call__(self, outputs: Outputs) -> tuple[Arrays, Arrays]:
        """Return the slots by name, f32[b v d], and diagnostics f32[b v], whose mean is logged.

        The outputs are those that `compose`'s `keep` returned.
        """
        ...


@runtime_checkable
class DrawFn(Protocol):
    """Draws the random numbers of `PrepareFn`."""

    def __call__(self, key: PRNGKeyArray, videos: int) -> Tree:
        """Return arrays that begin with the axis of videos; None where nothing is random."""
        ...


@runtime_checkable
class PrepareFn(Protocol):
    """Derives further views from the augmented ones."""

    def __call__(
        self, clips: Float[Array, "b v t h w 3"], context: Tree
    ) -> Float[Array, "b w t h w 3"]:
        """Return all views, given the random numbers of these videos."""
        ...


@runtime_checkable
class KeepFn(Protocol):
    """Selects what losses read of a network's outputs."""

    def __call__(self, params: Tree, outputs: Outputs, step: Int[Array, ""]) -> Outputs:
        """Return the outputs that are kept until all videos are embedded, without feature maps.

        What a loss needs of the features is computed here, for each video, and added to
        `projected`.

        Args:
          params: the network's parameters.
          outputs: the network's.
          step: number of the step, from 0.
        """
        ...


@runtime_checkable
class FitOperatorsFn(Protocol):
    """Fits operators to a network's outputs."""

    def __call__(self, outputs: Outputs) -> Operators:
        """Return an operator for each view, matrix f32[b v m m]."""
        ...


@runtime_checkable
class FormPartsFn(Protocol):
    """Forms the embeddings that a method is judged by."""

    def __call__(self, outputs: Outputs) -> Arrays:
        """Return the embeddings of each view by name, f32[b v d]."""
        ...


def no_slots(outputs: Outputs) -> tuple[Arrays, Arrays]:
    """Return no slots and no diagnostics: see `ProjectFn`."""
    return {}, {}


def draw_nothing(key: PRNGKeyArray, videos: int) -> None:
    """Return None: see `DrawFn`."""


def keep_views(clips: Float[Array, "b v t h w 3"], context: Tree):
    """Return the views as they are: see `PrepareFn`."""
    return clips


def append_reversed(clips: Float[Array, "b v t h w 3"], context: Tree):
    """Append the first view played backwards as one more view: see `PrepareFn`."""
    return jnp.concatenate([clips, clips[:, :1, ::-1]], axis=1)


def keep_projected(params: Tree, outputs: Outputs, step: Int[Array, ""]) -> Outputs:
    """Keep the heads' outputs and the diagnostics: see `KeepFn`."""
    return outputs._replace(features=None)


def unless(skip: Bool[Array, ""] | bool, compute: Callable[[], Tree]) -> Tree:
    """Return what `compute` returns, or zeros of the same shapes if `skip`."""
    if skip is False:
        return compute()

    def zeros():
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))

    return jax.lax.cond(skip, zeros, compute)


def compose(
    *,
    network: nn.Module,
    views: tuple[View, ...],
    horizon: TrainLength,
    framework: FrameworkConfig | None = None,
    slots: Mapping[str, Slot] | None = None,
    project: ProjectFn = no_slots,
    pairs: Pairs | None = None,
    draw: DrawFn = draw_nothing,
    prepare: PrepareFn = keep_views,
    keep: KeepFn = keep_projected,
    passes: tuple[tuple[int, ...], ...] | None = None,
    terms: ExtraLosses | None = None,
    operators: FitOperatorsFn | None = None,
    parts: FormPartsFn | None = None,
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
      draw: draws random numbers for `prepare`, which `terms` see as their context.
      prepare: derives further views from the augmented ones.
      keep: selects what `project`, `terms` and `inner` read of the network's outputs.
      passes: views that share batch statistics, by number, in the order of the passes; by default
        all views share them. The learning side embeds only views that are in a pass.
      terms: the method's own losses.
      operators: fits the operators whose spectrum a run records.
      parts: forms the embeddings that probes read besides the encoder's features.
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

    def init(key, clips, encoder=None):
        key_network, key_framework, key_losses, key_views = jax.random.split(key, 4)
        first = prepare(clips[:1], draw(key_views, 1))
        variables = network.init(key_network, first, False)
        weights = Weights(variables["params"], variables.get("batch_stats", {}))
        if encoder is not None:
            weights = replace_encoder(weights, encoder)
        params, compared = comparison.init(key_framework, weights, len(clips))
        extra = terms.init(key_losses, len(clips))
        state = {"stats": weights.stats, "framework": compared, "losses": extra}
        return {"network": weights.params, "framework": params}, state

    def loss(params, state, clips, key, step, is_lower=False):
        network_params = terms.freeze(params["network"], step)
        context = draw(key, len(clips))

        def embed(weights, clips):
            outputs, stats = _apply(network, weights, clips, predict=False)
            return project(keep(weights.params, outputs, step))[0], stats

        def embed_both_sides(carry, clips, context):
            stats, compared = carry
            clips = prepare(clips, context)
            outputs, stats = _in_passes(network, Weights(network_params, stats), clips, passes)
            keys, compared = unless(is_lower, lambda: comparison.keys(compared, embed, clips))
            return (stats, compared), (keep(network_params, outputs, step), keys)

        carry = state["stats"], state["framework"]
        (stats, compared), (outputs, keys) = embed_videos(embed_both_sides, carry, clips, context)

        def compare():
            queries, diagnostics = project(outputs)
            losses = comparison.compare(
                params["framework"], state["framework"], queries, keys, step
            )
            key_losses = jax.random.fold_in(key, 1)  # `key` itself draws the views
            total, metrics, extra = terms.loss(
                network_params, state["losses"], outputs, context, key_losses, step
            )
            total += sum(slots[name].weight * value for name, value in losses.items())
            losses = {f"loss/{name}": value for name, value in losses.items()}
            diagnostics = jax.tree.map(jnp.mean, {**outputs.diagnostics, **diagnostics})
            return total, extra, {**losses, **metrics, **diagnostics}

        total, extra, metrics = unless(is_lower, compare)
        if is_lower is not False:
            total += unless(~is_lower, lambda: inner.loss(outputs))
        return total, (
            {"stats": stats, "framework": compared, "keys": keys, "losses": extra},
            metrics,
        )

    def update(params, state, aux, step):
        network_params, extra = terms.update(
            params["network"], state["losses"], aux["losses"], step
        )
        weights = Weights(network_params, aux["stats"])
        framework_params, compared = comparison.update(
            params["framework"], aux["framework"], aux["keys"], weights, step
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

    def clip_outputs(params, state, clips):
        outputs = network.apply(variables(params, state), clips[:, None], False)
        return keep(params["network"], outputs, jnp.int32(0))

    def clip_operators(params, state, clips):
        fitted = operators(clip_outputs(params, state, clips))
        return fitted._replace(matrix=fitted.matrix[:, 0])

    def clip_parts(params, state, clips):
        formed = parts(clip_outputs(params, state, clips))
        return {name: part[:, 0] for name, part in formed.items()}

    def inner_loss(params, state, clips, key, step):
        weights = Weights(terms.freeze(params["network"], step), state["stats"])

        def embed_frames(carry, clips, context):
            return carry, keep(weights.params, _apply(network, weights, clips)[0], step)

        return inner.loss(embed_videos(embed_frames, (), clips)[1])

    joint = loss if passes is None and prepare is keep_views else None
    return Method(
        views=views,
        init=init,
        loss=loss,
        update=update,
        encode=encode,
        encoder=encoder,
        operators=clip_operators if operators else None,
        parts=clip_parts if parts else None,
        inner=inner._replace(loss=inner_loss, joint=joint) if inner else None,
    )


def replace_encoder(weights: Weights, encoder: dict[str, Tree]) -> Weights:
    """Return the weights of a network with the variables of another encoder.

    Raises:
      ValueError: arrays are missing, unknown or have another shape.
    """
    params, stats = encoder["params"], encoder["batch_stats"]
    expected = _array_shapes(
        {"params": weights.params["encoder"], "batch_stats": weights.stats.get("encoder", {})}
    )
    shapes = _array_shapes({"params": params, "batch_stats": stats})
    problems = [f"{name} is missing" for name in sorted(expected.keys() - shapes.keys())]
    problems += [f"{name} is unknown" for name in sorted(shapes.keys() - expected.keys())]
    problems += [
        f"{name} has shape {shapes[name]}, must have {expected[name]}"
        for name in sorted(expected.keys() & shapes.keys())
        if expected[name] != shapes[name]
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"init must have the encoder's arrays, but {'; '.join(problems[:3])}{more}"
        )
    stats = {**weights.stats, "encoder": stats} if stats else weights.stats
    return Weights({**weights.params, "encoder": params}, stats)


def _array_shapes(tree):
    """Return the shapes of the arrays in a tree by path, such as "params/stem/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


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
