"""Sinkhorn-Knopp assignment of embeddings to prototypes, and its prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses.explicit_axes import with_auto_axes


@with_auto_axes
def sinkhorn(
    scores: Float[Array, "n k"], *, epsilon: float = 0.05, iterations: int = 3
) -> Float[Array, "n k"]:
    """Return soft assignments of rows to columns, with all columns used equally; no gradient.

    Formula: in `exp(scores / epsilon)`, columns are scaled to equal sums and then rows to sum 1,
    `iterations` times. The computation is in log space and cannot overflow.

    Args:
      scores: similarity of each of n embeddings to each of k prototypes.
      epsilon: entropy regularisation; smaller is sharper.
      iterations: scalings of columns and rows; with few, columns are balanced approximately.

    Raises:
      ValueError: an argument outside its range.

    Source: Cuturi 2013; Caron et al. 2020 (SwAV), arXiv 2006.09882.

    >>> print(sinkhorn(jnp.zeros((4, 2)))[0])
    [0.5 0.5]
    """
    check.rank(2, scores=scores)
    check.positive(epsilon=epsilon)
    check.at_least(1, iterations=iterations)
    logs = jax.lax.stop_gradient(scores).astype(jnp.float32) / epsilon
    for _ in range(iterations):
        logs = jax.nn.log_softmax(logs, axis=0)
        logs = jax.nn.log_softmax(logs, axis=1)
    return jnp.exp(logs)


@with_auto_axes
def swapped_prediction(
    scores: Float[Array, "n k"], assignment: Float[Array, "n k"], *, temperature: float = 0.1
) -> Float[Array, ""]:
    """Cross-entropy between the assignment of one view and the scores of another view.

    Formula: mean over rows of `-sum assignment * log softmax(scores / temperature)`.

    Args:
      scores: scores of one view's embeddings.
      assignment: assignment of the other view's embeddings, rows with sum 1: see `sinkhorn`.
      temperature: divides the scores.

    Raises:
      ValueError: shapes that do not match, or a temperature that is not positive.

    Source: Caron et al. 2020 (SwAV), arXiv 2006.09882, equation 2.

    >>> scores = jnp.zeros((4, 2))
    >>> print(f"{swapped_prediction(scores, sinkhorn(scores)):.4f}")  # ln 2
    0.6931
    """
    check.rank(2, scores=scores, assignment=assignment)
    check.same_shape(scores=scores, assignment=assignment)
    check.positive(temperature=temperature)
    logs = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)
    return -jnp.mean(jnp.sum(assignment * logs, axis=-1))
