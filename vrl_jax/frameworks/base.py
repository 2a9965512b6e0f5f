"""How embeddings are compared: the contract of a framework, and the heads they share."""

from collections.abc import Callable, Mapping
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
    """What a framework may copy: the weights and statistics that turn clips into slots."""

    params: Tree
    stats: Tree


class Framework(NamedTuple):
    """Pure functions that compare slots.

    Attributes:
      init: (key, weights, videos per batch) -> (params, state).
      keys: (state, embed, clips) -> (slots or None, aux): what queries are compared with, without
        gradient; `embed(weights, clips) -> (slots, statistics)`.
      compare: (params, state, queries, keys, step) -> one loss per slot.
      update: (params, state, aux, weights, step) -> (params, state), after the optimiser's step.
      queries: the views that the learning side must embed.
    """

    init: Callable[..., tuple[Tree, Tree]]
    keys: Callable[..., tuple[Slots | None, Tree]]
    compare: Callable[..., dict[str, Float[Array, ""]]]
    update: Callable[..., tuple[Tree, Tree]]
    queries: frozenset[int]


@runtime_checkable
class FrameworkConfig(Protocol):
    """What a config names: the shape of its heads, and the functions once slots are known."""

    def head(self, dim: int) -> nn.Module:
        """Return the projection head that ends in `dim` outputs."""
        ...

    def predictor(self, dim: int) -> nn.Module | None:
        """Return what is put upon a head of the side that learns, and not upon its teacher's."""
        ...

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions for these slots and (query view, key view) pairs."""
        ...


class ProjectionHead(nn.Module):
    """A perceptron on the last axis: Linear - (BatchNorm) - ReLU, and a last Linear with bias."""

    hidden: int
    dim: int
    layers: int = 2
    norm: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b d"]:
        """Project; batch statistics run over every axis but the last."""
        xavier = nn.initializers.xavier_uniform()
        for _ in range(self.layers - 1):
            x = nn.Dense(self.hidden, use_bias=not self.norm, kernel_init=xavier)(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.relu(x)
        return nn.Dense(self.dim, kernel_init=xavier)(x)


def draw_rows(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "k d"]:
    """Draw unit vectors, for prototypes."""
    return normalize(jax.random.normal(key, shape))


def cosine_momentum(step: Int[Array, ""], first: float, total_steps: int) -> Float[Array, ""]:
    """Return the teacher's momentum: `first` at step 0, 1 at the last step, along a half cosine.

    Source: the schedule of Grill et al. 2020 (BYOL), used for MoCo too in arXiv 2104.14558.
    """
    progress = jnp.minimum(step / total_steps, 1.0)
    return 1 - (1 - first) * (jnp.cos(jnp.pi * progress) + 1) / 2


def ema_update(teacher: Tree, student: Tree, momentum: Float[Array, ""]) -> Tree:
    """Move the teacher's weights towards the student's: `m * teacher + (1 - m) * student`."""
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def both_sides(pairs: Pairs) -> frozenset[int]:
    """Return the views of pairs whose both sides learn."""
    return frozenset(view for pair in pairs for view in pair)


def first_side(pairs: Pairs) -> frozenset[int]:
    """Return the views of pairs whose second side is a teacher's."""
    return frozenset(view for view, _ in pairs)


def unordered_pairs(pairs: Pairs) -> Pairs:
    """Return each pair once, whichever way round it was given."""
    return tuple(sorted({tuple(sorted(pair)) for pair in pairs}))


def refuse_negatives(framework: str, slots: Mapping[str, Slot]) -> None:
    """Raise `ValueError` where a slot has negatives but the framework compares with none."""
    for name, slot in slots.items():
        if slot.negatives:
            raise ValueError(
                f"slot {name!r} has negatives, but {framework} compares with positives alone: take "
                f"SimCLR or MoCo, or method.reversed_negatives=False"
            )
