"""MoCo: a query finds its key, made by a slow copy of the network, among a queue of old keys."""

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
    Weights,
    cosine_momentum,
    ema_update,
    first_side,
)
from vrl_jax.losses import info_nce, normalize
from vrl_jax.types import Slot, TrainLength


@dataclass(frozen=True)
class MoCo:
    """InfoNCE against one queue of keys a slot (arXiv 1911.05722).

    The queue starts empty and only what has been filled counts, so no query is ever compared with
    random vectors; at the very first step there are no negatives, and this loss is zero. Batch
    statistics are those of the global batch, which takes the place of shuffled per-device
    statistics.

    Attributes:
      hidden: width of the head's hidden layers.
      layers: linear layers of the head.
      norm: batch normalisation after the head's hidden layers; the large-scale study
        (arXiv 2104.14558) found it harmful here.
      queue: keys kept a slot, a multiple of the keys that one step makes.
      momentum: of the slow copy at the first step.
      anneal: let it rise to 1 along a half cosine; the original keeps it.
    """

    hidden: int = 2048
    layers: int = 3
    norm: bool = False
    queue: int = 65536
    momentum: float = 0.994
    anneal: bool = True

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers, queue=self.queue)
        check.fraction(momentum=self.momentum)

    def head(self, dim: int) -> nn.Module:
        """Return the projection head that ends in `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers, self.norm)

    def predictor(self, dim: int) -> None:
        """Return None: queries and keys are made alike."""

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; the keys of the second view of each pair enter the queue."""
        positive = sorted({view for _, view in pairs})
        beside = sorted({view for slot in slots.values() for view in slot.negatives})
        place = {view: at for at, view in enumerate(positive + beside)}

        def init(key, weights, videos):
            made = videos * len(positive)
            if self.queue % made:
                raise ValueError(
                    f"framework.queue must be a multiple of the {made} keys a step makes "
                    f"({videos} videos x {len(positive)} views), got {self.queue}"
                )
            rows = {name: jnp.zeros((self.queue, slot.dim)) for name, slot in slots.items()}
            teacher = jax.tree.map(jnp.array, weights)
            return {}, {"teacher": teacher._asdict(), "queue": rows, "seen": jnp.int32(0)}

        def keys(state, embed, clips):
            made, stats = embed(Weights(**state["teacher"]), clips[:, jnp.array(list(place))])
            made = {
                name: normalize(made[name]) if slot.unit else made[name]
                for name, slot in slots.items()
            }
            made = jax.lax.stop_gradient(made)
            return made, {"keys": made, "stats": jax.lax.stop_gradient(stats)}

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                others = [keys[name][:, place[view]] for view in slot.negatives]
                terms = [
                    info_nce(
                        queries[name][:, i],
                        keys[name][:, place[j]],
                        jnp.concatenate([*others, state["queue"][name]]),
                        temperature=slot.temperature,
                        unit=slot.unit,
                        filled=jnp.minimum(state["seen"], self.queue) + sum(map(len, others)),
                    )
                    for i, j in pairs
                ]
                return sum(terms) / len(terms)

            return {name: loss(name, slot) for name, slot in slots.items()}

        def update(params, state, aux, weights, step):
            momentum = jnp.float32(self.momentum)
            if self.anneal:
                momentum = cosine_momentum(step, self.momentum, horizon.steps)
            teacher = ema_update(state["teacher"]["params"], weights.params, momentum)
            start = state["seen"] % self.queue
            made = {
                name: keys[:, : len(positive)].reshape(-1, keys.shape[-1])
                for name, keys in aux["keys"].items()
            }
            rows = {
                name: jax.lax.dynamic_update_slice_in_dim(state["queue"][name], keys, start, axis=0)
                for name, keys in made.items()
            }
            # Bounded, so that a long run cannot overflow; what is left still says "full".
            seen = state["seen"] + len(next(iter(made.values())))
            seen = jnp.where(seen >= 2 * self.queue, seen - self.queue, seen)
            teacher = {"params": teacher, "stats": aux["stats"]}
            return params, {"teacher": teacher, "queue": rows, "seen": seen}

        return Framework(init, keys, compare, update, first_side(pairs))
