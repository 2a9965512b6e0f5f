"""DualVar: representations that vary between videos and within them (arXiv 2107.01194).

A clip has one embedding and, from the same pooled feature, a sub-vector for each of its segments.
Clips of a video attract each other (clip contrast); the segments of a clip are told apart, by
comparing it with the same clip whose segments are played in another order (shuffle-rank); and the
mean of the sub-vectors keeps clips of a video together (temporally coherent contrast).

The defaults are the released scripts'. What is ours: the loss sees the global batch, batch
statistics are the global batch's, and on BYOL and SwAV, which the paper does not use, the coherence
slot is compared as it is.
"""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vrl_jax import check
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.losses import normalize, shuffle_rank, shuffle_rank_accuracy
from vrl_jax.methods.base import ExtraLosses, Method
from vrl_jax.methods.compose import compose
from vrl_jax.methods.network import EncoderConfig, attach_heads
from vrl_jax.types import Slot, TrainLength, View

CLIP, REDRAWN, SHUFFLED, OTHER = range(4)  # what the views are


@dataclass(frozen=True)
class DualVar:
    """Clip contrast, shuffle-rank and temporally coherent contrast.

    Attributes:
      dim: width of the clip embedding.
      segments: of a clip; each has a sub-vector.
      segment_dim: width of a sub-vector.
      temperature: of the clip contrast.
      coherence_temperature: of the temporally coherent contrast.
      rank_temperature: of the shuffle-rank loss.
      rank_cap: see `shuffle_rank`; 0 for none, as in the MoCo variant.
      clip_weight: of the clip contrast.
      coherence_weight: of the temporally coherent contrast; 0 leaves it out ("clip-sr").
      rank_weight: of shuffle-rank.
      references: shares of the clip and of its redrawn view as shuffle-rank's reference.
      allow_identity: whether the random order may be the true one.
      weak: probability that the first view has neither colour jitter nor blur.
      symmetric: compare both ways, all views but the shuffled one in one batch of statistics. False
        is the MoCo variant: the first clip asks, the teacher makes the key of the second, and the
        first view has statistics of its own.
    """

    dim: int = 128
    segments: int = 2
    segment_dim: int = 64
    temperature: float = 0.07
    coherence_temperature: float = 0.07
    rank_temperature: float = 0.05
    rank_cap: float = 5.0
    clip_weight: float = 1.0
    coherence_weight: float = 1.0
    rank_weight: float = 1.0
    references: tuple[float, float] = (0.5, 0.5)
    allow_identity: bool = True
    weak: float = 0.2
    symmetric: bool = True

    def __post_init__(self):
        check.at_least(1, dim=self.dim, segment_dim=self.segment_dim)
        check.at_least(2, segments=self.segments)
        if self.segments > 6:
            raise ValueError(
                f"segments must be at most 6, since all orders are listed, got {self.segments}"
            )
        check.positive(
            temperature=self.temperature,
            coherence_temperature=self.coherence_temperature,
            rank_temperature=self.rank_temperature,
        )
        check.at_least(0, rank_cap=self.rank_cap, clip_weight=self.clip_weight)
        check.at_least(0, coherence_weight=self.coherence_weight, rank_weight=self.rank_weight)
        check.fraction(weak=self.weak)
        check.at_least(0, **{f"references[{i}]": x for i, x in enumerate(self.references)})

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions."""
        widths = {"clip": self.dim, "segments": self.segments * self.segment_dim}
        slots = {
            "clip": Slot(self.dim, self.temperature, self.clip_weight),
            "coherence": Slot(
                self.segment_dim, self.coherence_temperature, self.coherence_weight, unit=False
            ),
        }
        symmetric = self.symmetric
        return compose(
            network=attach_heads(
                encoder, framework, widths, lambda f: (dict.fromkeys(widths, f.clip), {})
            ),
            framework=framework,
            views=(View(0, weak=self.weak), View(0), View(1)),
            slots={name: slot for name, slot in slots.items() if slot.weight},
            project=self._project,
            horizon=horizon,
            pairs=((CLIP, OTHER), (OTHER, CLIP)) if symmetric else ((CLIP, OTHER),),
            prepare=self._prepare,
            passes=((CLIP, REDRAWN, OTHER), (SHUFFLED,))
            if symmetric
            else ((CLIP,), (REDRAWN, SHUFFLED)),
            terms=ExtraLosses(self._rank),
        )

    def _prepare(self, key, clips):
        """Add the redrawn view with its segments in random order; return that order, too."""
        orders = np.array(list(itertools.permutations(range(self.segments))))
        orders = orders if self.allow_identity else orders[1:]
        order = jnp.array(orders)[jax.random.randint(key, len(clips), 0, len(orders))]
        shuffled = shuffle_segments(clips[:, 1], order)
        return jnp.stack([clips[:, 0], clips[:, 1], shuffled, clips[:, 2]], axis=1), order

    def _segments(self, outputs):
        """Return every view's sub-vectors at unit length, f32[b v s d]."""
        flat = outputs.projected["segments"]
        return normalize(flat.reshape(*flat.shape[:-1], self.segments, self.segment_dim))

    def _project(self, outputs):
        coherence = jnp.mean(self._segments(outputs), axis=-2)
        return {"clip": outputs.projected["clip"], "coherence": coherence}, {}

    def _rank(self, params, state, outputs, order, key, step):
        segments = self._segments(outputs)
        restored = restore_order(segments[:, SHUFFLED], order)
        given = {"temperature": self.rank_temperature, "cap": self.rank_cap or None}
        terms = [shuffle_rank(segments[:, v], restored, **given) for v in (CLIP, REDRAWN)]
        loss = sum(share * term for share, term in zip(self.references, terms, strict=True))
        accuracy = shuffle_rank_accuracy(segments[:, REDRAWN], restored)
        metrics = {"loss/shuffle_rank": loss, "shuffle_rank/accuracy": accuracy}
        return self.rank_weight * loss, metrics, {}


def shuffle_segments(clips: jax.Array, order: jax.Array) -> jax.Array:
    """Play each clip's equal segments in another order: the j-th played is the order[j]-th.

    Args:
      clips: f32[b t h w 3].
      order: i32[b s], a permutation each.

    Raises:
      ValueError: the frames cannot be cut into that many equal segments.
    """
    segments, frames = order.shape[1], clips.shape[1]
    if frames % segments:
        raise ValueError(
            f"sampling.frames must be a multiple of method.segments={segments}, got {frames}"
        )
    cut = clips.reshape(len(clips), segments, -1, *clips.shape[2:])
    index = order.reshape(*order.shape, *[1] * (cut.ndim - 2))
    return jnp.take_along_axis(cut, index, axis=1).reshape(clips.shape)


def restore_order(segments: jax.Array, order: jax.Array) -> jax.Array:
    """Undo `shuffle_segments` for what was made of segments: f32[b s d], i32[b s] -> f32[b s d]."""
    return jnp.take_along_axis(segments, jnp.argsort(order, axis=1)[..., None], axis=1)
