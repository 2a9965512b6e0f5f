"""SwAV: predict from one view which prototypes another view was assigned to."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vrl_jax import check
from vrl_jax.frameworks.base import (
    Framework,
    Pairs,
    ProjectionHead,
    both_sides,
    draw_rows,
    refuse_negatives,
)
from vrl_jax.losses import dot_products, normalize, sinkhorn, swapped_prediction
from vrl_jax.types import Slot, TrainLength


@dataclass(frozen=True)
class SwAV:
    """Swapped prediction of balanced assignments to learned prototypes (arXiv 2006.09882).

    Every slot has its own prototypes, unit vectors; assignments are balanced over the global batch.

    Attributes:
      hidden: width of the head's hidden layers.
      layers: linear layers of the head, batch normalisation between them.
      prototypes: a slot.
      epsilon: sharpness of the assignment.
      iterations: scalings of the assignment.
      freeze_epochs: passes over the videos during which the prototypes stay as they were drawn.
    """

    hidden: int = 2048
    layers: int = 3
    prototypes: int = 1000
    epsilon: float = 0.05
    iterations: int = 3
    freeze_epochs: float = 1.0

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers, iterations=self.iterations)
        check.at_least(2, prototypes=self.prototypes)
        check.positive(epsilon=self.epsilon)
        check.at_least(0, freeze_epochs=self.freeze_epochs)

    def head(self, dim: int) -> nn.Module:
        """Return the projection head that ends in `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers)

    def predictor(self, dim: int) -> None:
        """Return None: the prototypes' scores are what is predicted from."""

    def scores_head(self, dim: int) -> nn.Module:
        """Return a head that ends in scores against prototypes of its own: see `Slot.scored`."""
        return ScoresHead(self.head(dim), self.prototypes)

    def frozen(self, step: Int[Array, ""], horizon: TrainLength) -> Bool[Array, ""]:
        """Return whether prototypes stay as they were drawn at a step."""
        return step < round(self.freeze_epochs * horizon.steps_per_epoch)

    def hold(self, rows: Float[Array, "k d"], step: Int[Array, ""], horizon: TrainLength):
        """Give prototypes no gradient while they are frozen."""
        return jnp.where(self.frozen(step, horizon), jax.lax.stop_gradient(rows), rows)

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; for each pair the key view's assignment is predicted.

        Raises:
          ValueError: a slot with negatives.
        """
        refuse_negatives("SwAV", slots)

        def init(key, weights, videos):
            wanted = {name: slot.dim for name, slot in slots.items() if not slot.scored}
            draws = zip(jax.random.split(key, len(wanted)), wanted.items(), strict=True)
            rows = {name: draw_rows(k, (self.prototypes, dim)) for k, (name, dim) in draws}
            return rows, {"drawn": rows}

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                scores = queries[name]
                if not slot.scored:
                    z = normalize(scores) if slot.unit else scores
                    rows = self.hold(params[name], step, horizon)
                    scores = dot_products(z.astype(jnp.float32), normalize(rows))
                scores = jnp.moveaxis(scores, 1, 0)
                given = {"epsilon": self.epsilon, "iterations": self.iterations}
                terms = [
                    swapped_prediction(
                        scores[i], sinkhorn(scores[j], **given), temperature=slot.temperature
                    )
                    for i, j in pairs
                ]
                return sum(terms) / len(terms)

            return {name: loss(name, slot) for name, slot in slots.items()}

        def update(params, state, aux, weights, step):
            frozen = self.frozen(step, horizon)  # weight decay, too, leaves them alone
            rows = {
                name: jnp.where(frozen, state["drawn"][name], normalize(moved))
                for name, moved in params.items()
            }
            return rows, state

        def keys(state, embed, clips):
            return None, {}

        return Framework(init, keys, compare, update, both_sides(pairs))


class ScoresHead(nn.Module):
    """A head and the cosines of its outputs with prototypes."""

    head: nn.Module
    prototypes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b k"]:
        """Score each vector."""
        z = normalize(self.head(x, train).astype(jnp.float32))
        rows = self.param("prototypes", draw_rows, (self.prototypes, z.shape[-1]))
        return dot_products(z, normalize(rows))
