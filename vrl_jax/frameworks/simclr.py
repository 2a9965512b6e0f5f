"""SimCLR: each view is matched to its positive among all other embeddings of the batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from vrl_jax import check
from vrl_jax.frameworks.base import Framework, Pairs, ProjectionHead, both_sides, unordered_pairs
from vrl_jax.losses import nt_xent
from vrl_jax.types import Slot, TrainLength


@dataclass(frozen=True)
class SimCLR:
    """NT-Xent over the global batch, in both directions of each pair (arXiv 2002.05709).

    Attributes:
      hidden: width of the head's hidden layers.
      layers: linear layers of the head.
      norm: batch normalisation after the head's hidden layers.
      last_bias: a bias in the head's last layer.
      fan_in: see `ProjectionHead`.
    """

    hidden: int = 2048
    layers: int = 3
    norm: bool = True
    last_bias: bool = True
    fan_in: bool = False

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers)

    def head(self, dim: int) -> nn.Module:
        """Return a projection head with `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers, self.norm, self.last_bias, self.fan_in)

    def predictor(self, dim: int) -> None:
        """Return None: both sides learn."""

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; the two orders of a pair are one comparison."""

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                z = queries[name]
                negatives = [z[:, view] for view in slot.negatives]
                terms = [
                    nt_xent(
                        z[:, i],
                        z[:, j],
                        temperature=slot.temperature,
                        unit=slot.unit,
                        negatives=jnp.concatenate(negatives) if negatives else None,
                    )
                    for i, j in unordered_pairs(pairs)
                ]
                return sum(terms) / len(terms)

            return {name: loss(name, slot) for name, slot in slots.items()}

        return Framework(
            init=lambda key, weights, videos: ({}, {}),
            keys=lambda state, embed, clips: (None, state),
            compare=compare,
            update=lambda params, state, keys, weights, step: (params, state),
            queries=both_sides(pairs),
        )
