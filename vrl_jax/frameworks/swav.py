"""SwAV: predict the prototype assignment of one view from another view."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vrl_jax import check
from vrl_jax.frameworks.base import (
    Framework,
    Pairs,
    ProjectionHead,
    Tree,
    both_sides,
    draw_rows,
    reject_negatives,
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
      prototypes: number of prototypes per slot.
      epsilon: entropy regularisation of the assignment; smaller is sharper.
      iterations: Sinkhorn-Knopp iterations of the assignment.
      freeze_epochs: epochs during which the prototypes keep their initial values.
      fan_in: see `ProjectionHead`.
    """

    hidden: int = 2048
    layers: int = 3
    prototypes: int = 1000
    epsilon: float = 0.05
    iterations: int = 3
    freeze_epochs: float = 1.0
    fan_in: bool = False

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers, iterations=self.iterations)
        check.at_least(2, prototypes=self.prototypes)
        check.positive(epsilon=self.epsilon)
        check.at_least(0, freeze_epochs=self.freeze_epochs)

    def head(self, dim: int) -> nn.Module:
        """Return a projection head with `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers, fan_in=self.fan_in)

    def predictor(self, dim: int) -> None:
        """Return None: predictions are made from the scores against prototypes."""

    def scores_head(self, dim: int) -> nn.Module:
        """Return a head that scores its outputs against prototypes of its own: see `Slot`."""
        return ScoresHead(self.head(dim), self.prototypes)

    def freeze_prototypes(self, params: Tree, step: Int[Array, ""], horizon: TrainLength) -> Tree:
        """Return the parameters of a `ScoresHead`, its prototypes without gradient while frozen."""
        return {**params, "prototypes": self._freeze(params["prototypes"], step, horizon)}

    def _frozen(self, step: Int[Array, ""], horizon: TrainLength) -> Bool[Array, ""]:
        """Return whether prototypes keep their initial values at a step."""
        return step < round(self.freeze_epochs * horizon.steps_per_epoch)

    def _freeze(self, rows: Float[Array, "k d"], step: Int[Array, ""], horizon: TrainLength):
        """Return prototypes, without gradient while they are frozen."""
        return jnp.where(self._frozen(step, horizon), jax.lax.stop_gradient(rows), rows)

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; the key view's assignment is predicted from the query view.

        Raises:
          ValueError: a slot with negatives.
        """
        reject_negatives("SwAV", slots)

        def init(key, weights, videos):
            widths = {name: slot.dim for name, slot in slots.items() if not slot.scored}
            keys = jax.random.split(key, len(widths))
            rows = {
                name: draw_rows(k, (self.prototypes, dim))
                for k, (name, dim) in zip(keys, widths.items(), strict=True)
            }
            return rows, {"initial": rows}

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                scores = queries[name]
                if not slot.scored:
                    z = normalize(scores) if slot.unit else scores
                    rows = self._freeze(params[name], step, horizon)
                    scores = dot_products(z.astype(jnp.float32), normalize(rows))
                scores = jnp.moveaxis(scores, 1, 0)
                assign = partial(sinkhorn, epsilon=self.epsilon, iterations=self.iterations)
                terms = [
                    swapped_prediction(scores[i], assign(scores[j]), temperature=slot.temperature)
                    for i, j in pairs
                ]
                return sum(terms) / len(terms)

            return {name: loss(name, slot) for name, slot in slots.items()}

        def update(params, state, keys, weights, step):
            frozen = self._frozen(step, horizon)  # undoes weight decay as well
            rows = {
                name: jnp.where(frozen, state["initial"][name], normalize(updated))
                for name, updated in params.items()
            }
            return rows, state

        def keys(state, embed, clips):
            return None, state

        return Framework(init, keys, compare, update, both_sides(pairs))


class ScoresHead(nn.Module):
    """A projection head, and the cosines of its outputs with prototypes.

    Attributes:
      head: the projection head.
      prototypes: number of prototypes.
    """

    head: nn.Module
    prototypes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b k"]:
        """Return the scores of each vector."""
        z = normalize(self.head(x, train).astype(jnp.float32))
        rows = self.param("prototypes", draw_rows, (self.prototypes, z.shape[-1]))
        return dot_products(z, normalize(rows))
