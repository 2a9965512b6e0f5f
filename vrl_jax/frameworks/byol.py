"""BYOL: predict a teacher's embedding of another view, without negatives."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from vrl_jax import check
from vrl_jax.frameworks.base import (
    Framework,
    Pairs,
    ProjectionHead,
    cosine_momentum,
    ema_update,
    first_side,
    reject_negatives,
    teacher_slots,
)
from vrl_jax.losses import normalize
from vrl_jax.types import Slot, TrainLength


@dataclass(frozen=True)
class BYOL:
    """Squared distance between predictions and a teacher's embeddings (arXiv 2006.07733).

    Between unit vectors it is `2 - 2 cos`. Each head of the learning side has a predictor. There is
    no temperature.

    Attributes:
      hidden: width of the hidden layers of heads and predictors.
      layers: linear layers of a head, with batch normalisation between them.
      predictor_layers: linear layers of a predictor.
      momentum: EMA coefficient of the teacher at the first step; it rises to 1 along a half cosine.
      sum_pairs: see `MoCo`.
      fan_in: see `ProjectionHead`.
    """

    hidden: int = 4096
    layers: int = 2
    predictor_layers: int = 2
    momentum: float = 0.996
    sum_pairs: bool = False
    fan_in: bool = False

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers)
        check.at_least(1, predictor_layers=self.predictor_layers)
        check.fraction(momentum=self.momentum)

    def head(self, dim: int) -> nn.Module:
        """Return a projection head with `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers, fan_in=self.fan_in)

    def predictor(self, dim: int) -> nn.Module:
        """Return a predictor with `dim` inputs and outputs."""
        return ProjectionHead(self.hidden, dim, self.predictor_layers, fan_in=self.fan_in)

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; both orders of a pair count where both are listed.

        Raises:
          ValueError: a slot with negatives.
        """
        reject_negatives("BYOL", slots)
        targets = sorted({view for _, view in pairs})

        def init(key, weights, videos):
            return {}, {"teacher": jax.tree.map(jnp.array, weights)._asdict()}

        def keys(state, embed, clips):
            return teacher_slots(state, embed, clips[:, jnp.array(targets)])

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                query, key = queries[name], keys[name]
                if slot.unit:
                    query, key = normalize(query), normalize(key)
                errors = [query[:, i] - key[:, targets.index(j)] for i, j in pairs]
                pairs_counted = len(errors) if self.sum_pairs else 1
                return pairs_counted * jnp.mean(jnp.sum(jnp.square(jnp.stack(errors)), axis=-1))

            return {name: loss(name, slot) for name, slot in slots.items()}

        def update(params, state, keys, weights, step):
            momentum = cosine_momentum(step, self.momentum, horizon.steps)
            teacher = ema_update(state["teacher"]["params"], weights.params, momentum)
            return params, {"teacher": {**state["teacher"], "params": teacher}}

        return Framework(init, keys, compare, update, first_side(pairs))
