"""Losses on the scores of clips against learned concepts, and on concepts located in feature maps.

Source: Qian et al. 2022 (SDC), arXiv 2207.12795.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vrl_jax import check
from vrl_jax.losses.explicit_axes import with_auto_axes
from vrl_jax.losses.sinkhorn_knopp import sinkhorn, swapped_prediction


@with_auto_axes
def concept_alignment(
    scores: Float[Array, "v n k"],
    queue: Float[Array, "v m k"] | None = None,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Float[Array, ""]:
    """Each view predicts the balanced concept assignment of every other view.

    Formula: mean over ordered pairs (i, k), i not k, of
    `swapped_prediction(scores_k, sinkhorn([scores_i; queue_i])[:n], temperature)`.

    Args:
      scores: cosines of n clips in each of v views with k concepts.
      queue: earlier scores of each view, used only for balancing; or None.
      temperature: temperature of the prediction.
      epsilon: entropy regularisation of the assignment.
      iterations: Sinkhorn-Knopp iterations of the assignment.

    Raises:
      ValueError: fewer than two views, shapes that do not match, or arguments outside their range.

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


@with_auto_axes
def negative_entropy(scores: Float[Array, "*v k"], *, temperature: float = 0.1) -> Float[Array, ""]:
    """Return the mean negative entropy of `softmax(scores / temperature)`, minimal when uniform.

    It applies to views that concepts should not discriminate, such as frame differences for static
    concepts.

    Args:
      scores: cosines with k concepts.
      temperature: divides the scores.

    Raises:
      ValueError: a temperature that is not positive.

    >>> print(f"{negative_entropy(jnp.zeros((8, 100))):.4f}")  # -ln 100
    -4.6052
    """
    check.positive(temperature=temperature)
    logs = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)
    return jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1))


@with_auto_axes
def shared_activations(
    first: Float[Array, "n k"], second: Float[Array, "n k"], *, top: int = 10
) -> Bool[Array, "n k"]:
    """Return a mask of the concepts that are active in both views of a clip.

    A concept is active if its score is strictly above the `top`-th largest, so at most `top - 1`
    are.

    Args:
      first: scores of one view against k concepts.
      second: scores of the other view.
      top: rank of the threshold, at most k.

    Raises:
      ValueError: shapes that do not match, or fewer than `top` concepts.

    >>> x = jnp.arange(12.0)[None]
    >>> print(int(shared_activations(x, x).sum()))
    9
    """
    check.rank(2, first=first, second=second)
    check.same_shape(first=first, second=second)
    if not 1 <= top <= first.shape[-1]:
        concepts = first.shape[-1]
        raise ValueError(f"top must lie in [1, {concepts}], the number of concepts, got {top}")
    active = [x > jax.lax.top_k(x, top)[0][..., -1:] for x in (first, second)]
    return active[0] & active[1]


@with_auto_axes
def local_contrast(
    first: Float[Array, "n k d"],
    second: Float[Array, "n k d"],
    mask: Bool[Array, "n k"],
    *,
    margin: float = 1.4,
) -> Float[Array, ""]:
    """Contrast per concept: two views of a clip agree, other clips are pushed beyond a margin.

    Formula: with `delta(b, p, c) = sqrt(2 - 2 <first_bc, sg(second_pc)> + 1e-5)`, the sum over
    masked (b, c) of `delta(b, b, c)^2 + mean over p != b of max(0, margin - delta(b, p, c))^2`,
    for both directions, over the two directions' count of masked (b, c) plus 1.

    Args:
      first: unit vectors of each of k concepts, located in one view of n clips.
      second: the same for the other view.
      mask: concepts that count for each clip: see `shared_activations`.
      margin: distance beyond which other clips add no loss.

    Raises:
      ValueError: shapes that do not match, or fewer than two clips.

    >>> x = jnp.zeros((2, 1, 4)).at[..., 0].set(1.0)
    >>> print(f"{local_contrast(x, x, jnp.ones((2, 1), bool)):.5f}")
    1.56093
    """
    check.rank(3, first=first, second=second)
    check.same_shape(first=first, second=second)
    clips = first.shape[0]
    check.at_least(2, **{"the number of clips": clips})

    def one_way(vectors, targets):
        targets = jax.lax.stop_gradient(targets)
        cosine = jnp.einsum("bcd,pcd->bpc", vectors, targets, precision="highest")
        distance = jnp.sqrt(jnp.maximum(2 - 2 * cosine, 0) + 1e-5)
        same_clip = jnp.eye(clips, dtype=bool)[..., None]
        repulsion = jnp.maximum(margin - distance, 0) ** 2 / (clips - 1)
        return jnp.sum(jnp.where(same_clip, distance**2, repulsion), where=mask[:, None])

    total = one_way(first, second) + one_way(second, first)
    return total / (2 * jnp.sum(mask) + 1)
