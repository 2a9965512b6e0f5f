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
from jaxtyping import Array, Float

from vrl_jax.frameworks.framework import FrameworkConfig, Weights
from vrl_jax.types import Features, Slot, View

Tree = Any
Arrays = Mapping[str, jax.Array]


class Inner(NamedTuple):
    """The lower level of a bi-level programme over the same weights.

    Attributes:
      loss: (params, state, clips, key, step) -> scalar.
      steps: gradient steps on fresh videos before each outer step.
      learning_rate: of those steps.
      hypergradient: "none" takes the outer gradient where the inner steps end; "maml1" multiplies
        it by (I - learning_rate * H), "betty" by (I - H), H the inner loss's Hessian.
    """

    loss: Callable[..., Float[Array, ""]]
    steps: int
    learning_rate: float
    hypergradient: str


class Method(NamedTuple):
    """A self-supervised method as the train step sees it.

    Attributes:
      views: what the data must decode and augment.
      init: (key, clips f32[b v t h w 3]) -> (params, state).
      loss: (params, state, clips, key, step) -> (scalar, (aux, metrics)).
      update: (params, state, aux, step) -> (params, state): teachers, queues, statistics.
      encode: (params, state, clips f32[n t h w 3]) -> Features, with fixed statistics.
      frames: (params, state, clips f32[n t h w 3]) -> f32[n t d], the vectors whose dynamics the
        method looks at; None where it looks at none.
      inner: the lower level, or None.
    """

    views: tuple[View, ...]
    init: Callable[..., tuple[Tree, Tree]]
    loss: Callable[..., tuple[Float[Array, ""], tuple[Tree, dict[str, Float[Array, ""]]]]]
    update: Callable[..., tuple[Tree, Tree]]
    encode: Callable[..., Features]
    frames: Callable[..., Float[Array, "n t d"]] | None = None
    inner: Inner | None = None


@runtime_checkable
class EncoderConfig(Protocol):
    """What a config names as encoder."""

    def module(self) -> nn.Module:
        """Return the network: (clips f32[b t h w 3], train) -> Features."""
        ...


@runtime_checkable
class MethodConfig(Protocol):
    """What a config names as method."""

    def build(self, encoder: EncoderConfig, framework: FrameworkConfig, total_steps: int) -> Method:
        """Return the functions for this encoder and framework."""
        ...


class Network(nn.Module):
    """The encoder with its projection heads.

    Attributes:
      encoder: the network that is kept.
      heads: a projection head by name.
      read: the encoder's features to the heads' inputs by name, and diagnostics to log.
    """

    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    read: Callable[[Features], tuple[Arrays, Arrays]]

    def __call__(self, clips: Float[Array, "n t h w 3"], train: bool) -> "Outputs":
        """Return the features, every head's output, and the diagnostics."""
        features = self.encoder(clips, train)
        inputs, diagnostics = self.read(features)
        projected = {name: head(inputs[name], train) for name, head in self.heads.items()}
        return Outputs(features, projected, diagnostics)

    def encode(self, clips: Float[Array, "n t h w 3"]) -> Features:
        """Return the encoder's features, with fixed statistics."""
        return self.encoder(clips, False)


class Outputs(NamedTuple):
    """What a network says of a batch of clips: features, heads' outputs by name, diagnostics."""

    features: Features
    projected: Arrays
    diagnostics: Arrays


def compose(
    *,
    encoder: EncoderConfig,
    framework: FrameworkConfig,
    heads: Mapping[str, int],
    slots: Mapping[str, Slot],
    read: Callable[[Features], tuple[Arrays, Arrays]],
    project: Callable[[Arrays], tuple[Arrays, Arrays]],
    views: tuple[View, ...],
    total_steps: int,
    frames: Callable[[Outputs], Float[Array, "n t d"]] | None = None,
    inner: Inner | None = None,
    reversed_negatives: tuple[str, ...] = (),
) -> Method:
    """Put a method together from what is embedded and how embeddings are compared.

    Args:
      encoder: the network that is kept.
      framework: how slots are compared; it also shapes the heads.
      heads: output width of each projection head, by name.
      slots: what is compared, by name.
      read: the encoder's features to the heads' inputs f32[n ... c], and diagnostics to log.
      project: the heads' outputs to the slots f32[n d], and diagnostics to log.
      views: the views of a video; every ordered pair of them is compared.
      total_steps: length of the run, for schedules.
      frames: the frame vectors whose dynamics the method looks at, if it does.
      inner: the lower level; its `loss` is given here as a function of those frame vectors.
      reversed_negatives: slots for which the first view played backwards, as one view more, is a
        negative: the same appearance, another motion.
    """
    network = Network(
        encoder.module(), {name: framework.head(dim) for name, dim in heads.items()}, read
    )
    pairs = tuple(permutations(range(len(views)), 2))
    against = {name: slots[name]._replace(negatives=(len(views),)) for name in reversed_negatives}
    compare = framework.build({**slots, **against}, pairs, total_steps)

    def embed(weights, clips):
        outputs, stats = _apply(network, weights, clips)
        return _by_view(project(outputs.projected)[0], clips), stats

    def init(key, clips):
        key_network, key_framework = jax.random.split(key)
        variables = network.init(key_network, clips[:1, 0], False)
        weights = Weights(variables["params"], variables["batch_stats"])
        params, state = compare.init(key_framework, weights, clips.shape[0])
        return (
            {"network": weights.params, "framework": params},
            {"stats": weights.stats, "framework": state},
        )

    def loss(params, state, clips, key, step):
        weights = Weights(params["network"], state["stats"])
        if reversed_negatives:
            clips = jnp.concatenate([clips, clips[:, :1, ::-1]], axis=1)
        outputs, stats = _apply(network, weights, clips)
        flat, diagnostics = project(outputs.projected)
        keys, aux = compare.keys(state["framework"], embed, clips)
        terms = compare.compare(
            params["framework"], state["framework"], _by_view(flat, clips), keys
        )
        total = sum(slots[name].weight * term for name, term in terms.items())
        losses = {f"loss/{name}": term for name, term in terms.items()}
        metrics = {**losses, **outputs.diagnostics, **diagnostics}
        return total, ({"stats": stats, "framework": aux}, metrics)

    def update(params, state, aux, step):
        weights = Weights(params["network"], aux["stats"])
        own, kept = compare.update(
            params["framework"], state["framework"], aux["framework"], weights, step
        )
        return (
            {"network": weights.params, "framework": own},
            {"stats": weights.stats, "framework": kept},
        )

    def variables(params, state):
        return {"params": params["network"], "batch_stats": state["stats"]}

    def encode(params, state, clips):
        return network.apply(variables(params, state), clips, method="encode")

    def frame_vectors(params, state, clips):
        return frames(network.apply(variables(params, state), clips, False))

    def inner_loss(params, state, clips, key, step):
        weights = Weights(params["network"], state["stats"])
        return inner.loss(frames(_apply(network, weights, clips)[0]))

    return Method(
        views=views,
        init=init,
        loss=loss,
        update=update,
        encode=encode,
        frames=frame_vectors if frames else None,
        inner=inner._replace(loss=inner_loss) if inner else None,
    )


def _apply(network, weights, clips):
    """Run every view of every video through the network as one batch of statistics."""
    flat = clips.reshape(-1, *clips.shape[2:])
    variables = {"params": weights.params, "batch_stats": weights.stats}
    outputs, changed = network.apply(variables, flat, True, mutable=["batch_stats"])
    return outputs, changed["batch_stats"]


def _by_view(slots, clips):
    """Give the slots their view axis back: f32[b*v d] -> f32[b v d]."""
    return {name: z.reshape(*clips.shape[:2], -1) for name, z in slots.items()}
