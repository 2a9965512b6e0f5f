"""DualVar: features that discriminate videos and the segments within them (arXiv 2107.01194).

A clip has one embedding and, from the same pooled feature, an embedding of each of its segments.
Clips of a video attract each other (clip contrast). Segments of a clip are discriminated by
comparison with the same clip played with its segments in another order (shuffle-rank). The mean of
the segment embeddings attracts clips of a video (temporally coherent contrast).

The defaults are those of the released scripts. Ours: losses and batch statistics are those of the
global batch, and BYOL and SwAV, which the paper does not use, compare the coherence slot without
normalisation.
"""

import itertools
from dataclasses import dataclass
from functools import partial

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

CLIP, REDRAWN, SHUFFLED, OTHER = range(4)  # the views, in order


@dataclass(frozen=True)
class DualVar:
    """Clip contrast, shuffle-rank and temporally coherent contrast.

    Attributes:
      dim: width of the clip embedding.
      segments: segments of a clip.
      segment_dim: width of a segment's embedding.
      temperature: temperature of the clip contrast.
      coherence_temperature: temperature of the temporally coherent contrast.
      rank_temperature: temperature of the shuffle-rank loss.
      rank_cap: see `shuffle_rank`; 0 for none, as in the MoCo variant.
      clip_weight: weight of the clip contrast.
      coherence_weight: weight of the temporally coherent contrast; 0 leaves it out ("clip-sr").
      rank_weight: weight of the shuffle-rank loss.
      references: weights of the clip and of its second view as reference of shuffle-rank.
      allow_identity: whether the random order may be the original order.
      weak: probability that the first view has neither colour jitter nor blur.
      symmetric: compare both ways, with all views except the shuffled one in one batch of
        statistics. False is the MoCo variant: queries come from the first clip, keys from the
        second, and the first view has its own batch statistics.
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
            draw=self._draw,
            prepare=insert_shuffled,
            passes=((CLIP, REDRAWN, OTHER), (SHUFFLED,))
            if symmetric
            else ((CLIP,), (REDRAWN, SHUFFLED)),
            terms=ExtraLosses(self._rank),
        )

    def _draw(self, key, videos):
        """Draw an order of the segments for each video, i32[b s]."""
        orders = np.array(list(itertools.permutations(range(self.segments))))
        orders = orders if self.allow_identity else orders[1:]
        return jnp.array(orders)[jax.random.randint(key, videos, 0, len(orders))]

    def _segments(self, outputs):
        """Return the unit embeddings of all segments, f32[b v s d]."""
        flat = outputs.projected["segments"]
        return normalize(flat.reshape(*flat.shape[:-1], self.segments, self.segment_dim))

    def _project(self, outputs):
        coherence = jnp.mean(self._segments(outputs), axis=-2)
        return {"clip": outputs.projected["clip"], "coherence": coherence}, {}

    def _rank(self, params, state, outputs, order, key, step):
        segments = self._segments(outputs)
        restored = restore_order(segments[:, SHUFFLED], order)
        rank = partial(shuffle_rank, temperature=self.rank_temperature, cap=self.rank_cap or None)
        terms = [rank(segments[:, view], restored) for view in (CLIP, REDRAWN)]
        loss = sum(weight * term for weight, term in zip(self.references, terms, strict=True))
        accuracy = shuffle_rank_accuracy(segments[:, REDRAWN], restored)
        metrics = {"loss/shuffle_rank": loss, "shuffle_rank/accuracy": accuracy}
        return self.rank_weight * loss, metrics, {}


def insert_shuffled(clips: jax.Array, order: jax.Array) -> jax.Array:
    """Insert the second view with its segments in another order as third view, f32[b 4 t h w 3]."""
    shuffled = shuffle_segments(clips[:, 1], order)
    return jnp.stack([clips[:, 0], clips[:, 1], shuffled, clips[:, 2]], axis=1)


def shuffle_segments(clips: jax.Array, order: jax.Array) -> jax.Array:
    """Reorder the equal segments of clips: segment j of the result is segment order[j].

    Args:
      clips: f32[b t h w 3].
      order: a permutation of the segments of each clip, i32[b s].

    Raises:
      ValueError: the number of frames is not a multiple of the number of segments.
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
    """Sort embeddings of shuffled segments back, f32[b s d]: inverse of `shuffle_segments`."""
    return jnp.take_along_axis(segments, jnp.argsort(order, axis=1)[..., None], axis=1)
