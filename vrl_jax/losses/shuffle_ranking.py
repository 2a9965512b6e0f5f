"""Ranking losses over the segments of a clip."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses.explicit_axes import with_auto_axes
from vrl_jax.losses.similarity import normalize


@with_auto_axes
def shuffle_rank(
    reference: Float[Array, "n s d"],
    shuffled: Float[Array, "n s d"],
    *,
    temperature: float = 0.05,
    cap: float | None = 5.0,
) -> Float[Array, ""]:
    """Shuffle-rank: each segment is closer to its counterpart than to any other segment.

    Formula: of the 2s unit vectors of both clips, row r's counterpart c(r) is the same segment in
    the other clip; the loss is the mean over clips, rows r and the 2s - 2 rows j that are neither
    of `softplus(min((<r, j> - <r, c(r)>) / temperature, cap))`.

    Args:
      reference: embeddings of a clip's segments, in order; s is at least 2.
      shuffled: embeddings of the same segments from the clip played in another order, sorted back
        into the order of the reference.
      temperature: divides the difference of cosines.
      cap: pairs that violate the ranking by more than this get no gradient; None for no cap.

    Raises:
      ValueError: shapes that do not match, fewer than two segments, or a temperature that is not
        positive.

    Source: Zhang et al. 2021 (DualVar), arXiv 2107.01194.

    >>> x = jnp.ones((4, 2, 8))
    >>> print(f"{shuffle_rank(x, x):.4f}")  # ln 2: all segments are equal
    0.6931
    """
    gram, counterpart, others = _pairs(reference, shuffled)
    check.positive(temperature=temperature)
    excess = (gram - counterpart[..., None]) / temperature
    if cap is not None:
        excess = jnp.minimum(excess, cap)
    return jnp.mean(jax.nn.softplus(excess), where=others)


@with_auto_axes
def shuffle_rank_accuracy(
    reference: Float[Array, "n s d"], shuffled: Float[Array, "n s d"]
) -> Float[Array, ""]:
    """Return the fraction of rows that are closest to their counterpart; see `shuffle_rank`.

    >>> x = jnp.eye(2)[None]
    >>> print(shuffle_rank_accuracy(x, x), shuffle_rank_accuracy(x, x[:, ::-1]))
    1.0 0.0
    """
    gram, counterpart, others = _pairs(reference, shuffled)
    return jnp.mean(counterpart > jnp.max(gram, axis=-1, where=others, initial=-jnp.inf))


def _pairs(reference, shuffled):
    """Return all cosines [n 2s 2s], each row's with its counterpart, and a mask of the others."""
    check.rank(3, reference=reference, shuffled=shuffled)
    check.same_shape(reference=reference, shuffled=shuffled)
    segments = reference.shape[1]
    check.at_least(2, **{"the number of segments": segments})
    rows = jnp.concatenate([reference, shuffled], axis=1).astype(jnp.float32)
    rows = normalize(rows)
    gram = jnp.einsum("nrd,njd->nrj", rows, rows, precision="highest")
    segment = np.arange(2 * segments) % segments
    same_segment = segment[:, None] == segment
    counterpart = jnp.sum(gram, axis=-1, where=same_segment & ~np.eye(2 * segments, dtype=bool))
    return gram, counterpart, ~same_segment
