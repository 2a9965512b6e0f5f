"""MoCo: each query is matched to a teacher's key among a queue of earlier keys."""

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
    teacher_slots,
)
from vrl_jax.losses import info_nce, normalize
from vrl_jax.types import Slot, TrainLength


@dataclass(frozen=True)
class MoCo:
    """InfoNCE against one queue of keys per slot (arXiv 1911.05722).

    The queue starts empty and only its filled part counts, so queries are never compared with
    random vectors; at the first step there are no negatives and this loss is zero. Batch statistics
    are those of the global batch, in place of shuffled per-device statistics.

    Attributes:
      hidden: width of the head's hidden layers.
      layers: linear layers of the head.
      norm: batch normalisation after the head's hidden layers; the large-scale study
        (arXiv 2104.14558) found it harmful here.
      queue: length of the queue per slot, a multiple of the keys that one step makes.
      momentum: EMA coefficient of the teacher at the first step.
      anneal: raise the momentum to 1 along a half cosine; the original keeps it constant.
      sum_pairs: sum the losses of a video's ordered pairs, as the code of the large-scale study
        does; else average them.
      fan_in: see `ProjectionHead`.
    """

    hidden: int = 2048
    layers: int = 3
    norm: bool = False
    queue: int = 65536
    momentum: float = 0.994
    anneal: bool = True
    sum_pairs: bool = False
    fan_in: bool = False

    def __post_init__(self):
        check.at_least(1, hidden=self.hidden, layers=self.layers, queue=self.queue)
        check.fraction(momentum=self.momentum)

    def head(self, dim: int) -> nn.Module:
        """Return a projection head with `dim` outputs."""
        return ProjectionHead(self.hidden, dim, self.layers, self.norm, fan_in=self.fan_in)

    def predictor(self, dim: int) -> None:
        """Return None: queries and keys are computed alike."""

    def build(self, slots: Mapping[str, Slot], pairs: Pairs, horizon: TrainLength) -> Framework:
        """Return the functions; the keys of the second view of each pair enter the queue."""
        positives = sorted({view for _, view in pairs})
        negatives = sorted({view for slot in slots.values() for view in slot.negatives})
        column = {view: index for index, view in enumerate(positives + negatives)}

        def init(key, weights, videos):
            count = videos * len(positives)
            if self.queue % count:
                raise ValueError(
                    f"framework.queue must be a multiple of the {count} keys per step "
                    f"({videos} videos x {len(positives)} views), got {self.queue}"
                )
            rows = {name: jnp.zeros((self.queue, slot.dim)) for name, slot in slots.items()}
            teacher = jax.tree.map(jnp.array, weights)
            return {}, {"teacher": teacher._asdict(), "queue": rows, "pushed": jnp.int32(0)}

        def keys(state, embed, clips):
            embedded, state = teacher_slots(state, embed, clips[:, jnp.array(list(column))])
            keys = {
                name: normalize(embedded[name]) if slot.unit else embedded[name]
                for name, slot in slots.items()
            }
            return keys, state

        def compare(params, state, queries, keys, step):
            def loss(name, slot):
                others = [keys[name][:, column[view]] for view in slot.negatives]
                terms = [
                    info_nce(
                        queries[name][:, i],
                        keys[name][:, column[j]],
                        jnp.concatenate([*others, state["queue"][name]]),
                        temperature=slot.temperature,
                        unit=slot.unit,
                        filled=jnp.minimum(state["pushed"], self.queue) + sum(map(len, others)),
                    )
                    for i, j in pairs
                ]
                return sum(terms) / (1 if self.sum_pairs else len(terms))

            return {name: loss(name, slot) for name, slot in slots.items()}

        def update(params, state, keys, weights, step):
            momentum = jnp.float32(self.momentum)
            if self.anneal:
                momentum = cosine_momentum(step, self.momentum, horizon.steps)
            teacher = ema_update(state["teacher"]["params"], weights.params, momentum)
            start = state["pushed"] % self.queue
            newest = {
                name: each[:, : len(positives)].reshape(-1, each.shape[-1])
                for name, each in keys.items()
            }
            rows = {
                name: jax.lax.dynamic_update_slice_in_dim(state["queue"][name], each, start, axis=0)
                for name, each in newest.items()
            }
            # Bounded, so that it cannot overflow in a long run; the queue still counts as full.
            pushed = state["pushed"] + len(next(iter(newest.values())))
            pushed = jnp.where(pushed >= 2 * self.queue, pushed - self.queue, pushed)
            teacher = {**state["teacher"], "params": teacher}
            return params, {"teacher": teacher, "queue": rows, "pushed": pushed}

        return Framework(init, keys, compare, update, first_side(pairs))
