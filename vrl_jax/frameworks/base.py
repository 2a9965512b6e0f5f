"""The contract of a framework, which compares embeddings, and what frameworks share."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vrl_jax.losses import normalize
from vrl_jax.types import Slot, TrainLength

Tree = Any
Pairs = tuple[tuple[int, int], ...]
Slots = Mapping[str, Float[Array, "b v d"]]


class Weights(NamedTuple):
    """Parameters and batch statistics of a network, which a framework may copy for a teacher."""

    params: Tree
    stats: Tree


@runtime_checkable
class EmbedFn(Protocol):
    """Turns views into slots."""

    def __call__(self, weights: Weights, clips: Float[Array, "b v t h w 3"]) -> tuple[Slots, Tree]:
        """Return the slots of all views, without predictors, and the new batch statistics."""
        ...


@runtime_checkable
class FrameworkInitFn(Protocol):
    """Creates a framework's parameters and state."""

    def __call__(self, key: PRNGKeyArray, weights: Weights, videos: int) -> tuple[Tree, Tree]:
        """Return what the optimiser updates, and everything else that the next step reads.

        Args:
          key: random key.
          weights: the network's at the start.
          videos: in a global batch.

        Returns:
          (params, state), two trees of arrays.

        Raises:
          ValueError: a batch that the framework cannot take.
        """
        ...


@runtime_checkable
class KeysFn(Protocol):
    """Makes what queries are compared with."""

    def __call__(
        self, state: Tree, embed: EmbedFn, clips: Float[Array, "b v t h w 3"]
    ) -> tuple[Slots | None, Tree]:
        """Return keys without gradient, and the state with the statistics of these views.

        Args:
          state: the framework's.
          embed: turns views into slots, given weights.
          clips: the views of the global batch, or of a micro-batch; then `state` is what the
            micro-batch before it returned.

        Returns:
          (keys, state); keys are None where queries are compared with each other.
        """
        ...


@runtime_checkable
class CompareFn(Protocol):
    """Computes the loss of each slot."""

    def __call__(
        self, params: Tree, state: Tree, queries: Slots, keys: Slots | None, step: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        """Return one loss for each slot, unweighted.

        Args:
          params: the framework's.
          state: the framework's, constant in the gradient.
          queries: the learning side's embeddings of all views, f32[b v d] for each slot.
          keys: what `keys` returned.
          step: number of the step, from 0.
        """
        ...


@runtime_checkable
class FrameworkUpdateFn(Protocol):
    """Updates teachers, queues and prototypes after the optimiser's step."""

    def __call__(
        self, params: Tree, state: Tree, keys: Slots | None, weights: Weights, step: Int[Array, ""]
    ) -> tuple[Tree, Tree]:
        """Return the framework's parameters and state for the next step.

        Args:
          params: the framework's, after the optimiser's step.
          state: what `keys` returned with the last keys.
          keys: of the global batch.
          weights: the network's after the step.
          step: number of the step, from 0.
        """
        ...


class Framework(NamedTuple):
    """Pure functions that compare slots.

    Attributes:
      init: creates parameters and state.
      keys: makes what queries are compared with.
      compare: computes the loss of each slot.
      update: updates teachers, queues and prototypes after the optimiser's step.
      queries: the views that the learning side must embed.
    """

    init: FrameworkInitFn
    keys: KeysFn
    compare: CompareFn
    update: FrameworkUpdateFn
    queries: frozenset[int]


@runtime_checkable
class FrameworkConfig(Protocol):
    """The component under `framework` in a config."""

    def head(self, dim: int) -> nn.Module:
        """Return a projection head with `dim` outputs."""
        ...

    def predictor(self, dim: int) -> nn.Module | None:
        """Return a predictor on a head of the learning side; None where there is none."""
        ...

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the framework's functions.

        Args:
          slots: the embeddings to compare, by name.
          pairs: (query view, key view) to compare.
          horizon: length of the run, for schedules.

        Raises:
          ValueError: slots that the framework cannot compare.
        """
        ...


@runtime_checkable
class PrototypeFramework(FrameworkConfig, Protocol):
    """A framework that compares scores against prototypes, and accepts slots that are scores."""

    def scores_head(self, dim: int) -> nn.Module:
        """Return a head with `dim` outputs and prototypes of its own, which returns the scores.

        The scores are for slots with `scored=True`.
        """
        ...

    def freeze_prototypes(self, params: Tree, step: Int[Array, ""], horizon: TrainLength) -> Tree:
        """Return the parameters of a scores head, its prototypes without gradient while frozen."""
        ...


def no_comparison() -> Framework:
    """Return the framework of a method that makes its own comparisons: it compares no slot."""
    return Framework(
        init=lambda key, weights, videos: ({}, {}),
        keys=lambda state, embed, clips: (None, state),
        compare=lambda params, state, queries, keys, step: {},
        update=lambda params, state, keys, weights, step: (params, state),
        queries=frozenset(),
    )


def teacher_slots(state: Tree, embed: EmbedFn, clips: Array) -> tuple[Slots, Tree]:
    """Return a teacher's slots without gradient, and the state with its new batch statistics.

    Args:
      state: has the teacher's `Weights`, as a dictionary, under "teacher".
      embed: turns views into slots, given weights.
      clips: the views that `embed` takes, f32[b v t h w 3].
    """
    slots, stats = jax.lax.stop_gradient(embed(Weights(**state["teacher"]), clips))
    return slots, {**state, "teacher": {**state["teacher"], "stats": stats}}


class ProjectionHead(nn.Module):
    """A perceptron on the last axis: Linear - (BatchNorm) - ReLU, and a last Linear.

    Attributes:
      hidden: width of the hidden layers.
      dim: outputs.
      layers: linear layers.
      norm: batch normalisation after the hidden layers.
      last_bias: a bias in the last layer. It is a component that all frames of all clips share,
        with eigenvalue 1 in an operator that is fitted to the outputs.
      fan_in: initial weights are uniform with variance 1 / inputs, as in Caffe2's "Xavier"; else
        with variance 2 / (inputs + outputs), Glorot's.
    """

    hidden: int
    dim: int
    layers: int = 2
    norm: bool = True
    last_bias: bool = True
    fan_in: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b d"]:
        """Project vectors; batch statistics are over all axes but the last."""
        xavier = nn.initializers.xavier_uniform()
        if self.fan_in:
            xavier = nn.initializers.lecun_uniform()
        for _ in range(self.layers - 1):
            x = nn.Dense(self.hidden, use_bias=not self.norm, kernel_init=xavier)(x)
            if self.norm:
                x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False)(x)
            x = nn.relu(x)
        return nn.Dense(self.dim, use_bias=self.last_bias, kernel_init=xavier)(x)


def draw_rows(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "k d"]:
    """Draw random unit vectors."""
    return normalize(jax.random.normal(key, shape))


def cosine_momentum(step: Int[Array, ""], first: float, total_steps: int) -> Float[Array, ""]:
    """Return the teacher's momentum: `first` at step 0, 1 at the last step, along a half cosine.

    Source: Grill et al. 2020 (BYOL), arXiv 2006.07733; arXiv 2104.14558 uses it for MoCo as well.
    """
    progress = jnp.minimum(step / total_steps, 1.0)
    return 1 - (1 - first) * (jnp.cos(jnp.pi * progress) + 1) / 2


def ema_update(teacher: Tree, student: Tree, momentum: Float[Array, ""]) -> Tree:
    """Return the moving average of weights: `m * teacher + (1 - m) * student`."""
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def both_sides(pairs: Pairs) -> frozenset[int]:
    """Return the views that the learning side embeds where both sides of a pair learn."""
    return frozenset(view for pair in pairs for view in pair)


def first_side(pairs: Pairs) -> frozenset[int]:
    """Return the views that the learning side embeds where keys are a teacher's."""
    return frozenset(view for view, _ in pairs)


def unordered_pairs(pairs: Pairs) -> Pairs:
    """Return each pair once, regardless of order."""
    return tuple(sorted({tuple(sorted(pair)) for pair in pairs}))


def reject_negatives(framework: str, slots: Mapping[str, Slot]) -> None:
    """Raise `ValueError` for a slot with negatives, which the framework does not use."""
    for name, slot in slots.items():
        if slot.negatives:
            raise ValueError(
                f"slot {name!r} has negatives, which {framework} does not use: use SimCLR or MoCo, "
                f"or method.reversed_negatives=False"
            )
