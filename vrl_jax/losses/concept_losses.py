"""Losses over scores of a clip against learned concepts, and over concepts found in its map.

All from Qian et al. 2022 (SDC), arXiv 2207.12795.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vrl_jax import check
from vrl_jax.losses.sinkhorn_knopp import sinkhorn, swapped_prediction


def concept_alignment(
    scores: Float[Array, "v n k"],
    queue: Float[Array, "v m k"] | None = None,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Float[Array, ""]:
    """Every view predicts every other view's balanced assignment to the concepts.

    Formula: mean over ordered pairs (i, k), i not k, of
    `swapped_prediction(scores_k, sinkhorn([scores_i; queue_i])[:n], temperature)`.

    Args:
      scores: of n clips in each of v views against k concepts, cosines.
      queue: past scores of each view, which take part in balancing alone; or None.
      temperature: of the prediction.
      epsilon: of the assignment.
      iterations: of the assignment.

    Raises:
      ValueError: fewer than two views, shapes that do not fit, arguments outside their range.

    >>> print(f"{concept_alignment(jnp.zeros((4, 8, 100))):.4f}")  # ln 100
    4.6052
    """
    check.rank(3, scores=scores)
    check.at_least(2, **{"the number of views": scores.shape[0]})
    views, clips, _ = scores.shape
    whole = scores if queue is None else jnp.concatenate([scores, queue], axis=1)
    targets = [sinkhorn(rows, epsilon=epsilon, iterations=iterations)[:clips] for rows in whole]
    terms = [
        swapped_prediction(scores[k], targets[i], temperature=temperature)
        for i, k in itertools.permutations(range(views), 2)
    ]
    return sum(terms) / len(terms)


def negative_entropy(scores: Float[Array, "*v k"], *, temperature: float = 0.1) -> Float[Array, ""]:
    """Return the mean negative entropy of `softmax(scores / temperature)`: least where uniform.

    For views that concepts should not tell apart, such as frame differences by static ones.

    Args:
      scores: against k concepts, cosines.
      temperature: divides the scores.

    Raises:
      ValueError: no positive temperature.

    >>> print(f"{negative_entropy(jnp.zeros((8, 100))):.4f}")  # -ln 100
    -4.6052
    """
    check.positive(temperature=temperature)
    logs = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)
    return jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1))


def shared_activations(
    first: Float[Array, "n k"], second: Float[Array, "n k"], *, top: int = 10
) -> Bool[Array, "n k"]:
    """Mark the concepts among the strongest of both views of a clip.

    A concept counts in a view where its score is strictly above the `top`-th largest, so at most
    `top - 1` do.

    Args:
      first: scores of one view against k concepts.
      second: of the other.
      top: rank of the threshold, at most k.

    Raises:
      ValueError: the shapes do not fit, or there are fewer than `top` concepts.

    >>> x = jnp.arange(12.0)[None]
    >>> print(int(shared_activations(x, x).sum()))
    9
    """
    check.rank(2, first=first, second=second)
    check.same_shape(first=first, second=second)
    if not 1 <= top <= first.shape[-1]:
        raise ValueError(f"top must lie in [1, {first.shape[-1]}], the concepts, got {top}")
    active = [x > jax.lax.top_k(x, top)[0][..., -1:] for x in (first, second)]
    return active[0] & active[1]


def local_contrast(
    first: Float[Array, "n k d"],
    second: Float[Array, "n k d"],
    mask: Bool[Array, "n k"],
    *,
    margin: float = 1.4,
) -> Float[Array, ""]:
    """Concept by concept, two views of a clip agree and other clips keep a distance.

    Formula: with `delta(b, p, c) = sqrt(2 - 2 <first_bc, sg(second_pc)> + 1e-5)`, the sum over
    masked (b, c) of `delta(b, b, c)^2 + mean over p != b of max(0, margin - delta(b, p, c))^2`,
    for both directions, over the two directions' count of masked (b, c) plus 1.

    Args:
      first: what was found of each of k concepts in one view of n clips, unit vectors.
      second: in the other view.
      mask: which concepts count for which clip: see `shared_activations`.
      margin: distance beyond which other clips are left alone.

    Raises:
      ValueError: the shapes do not fit, or fewer than two clips.

    >>> x = jnp.zeros((2, 1, 4)).at[..., 0].set(1.0)
    >>> print(f"{local_contrast(x, x, jnp.ones((2, 1), bool)):.5f}")
    1.56093
    """
    check.rank(3, first=first, second=second)
    check.same_shape(first=first, second=second)
    clips = first.shape[0]
    check.at_least(2, **{"the number of clips": clips})

    def one_way(found, target):
        target = jax.lax.stop_gradient(target)
        cosine = jnp.einsum("bcd,pcd->bpc", found, target, precision="highest")
        distance = jnp.sqrt(jnp.maximum(2 - 2 * cosine, 0) + 1e-5)
        own = jnp.eye(clips, dtype=bool)[..., None]
        apart = jnp.maximum(margin - distance, 0) ** 2 / (clips - 1)
        return jnp.sum(jnp.where(own, distance**2, apart), where=mask[:, None])

    total = one_way(first, second) + one_way(second, first)
    return total / (2 * jnp.sum(mask) + 1)
