"""Contrastive losses: the positive is classified among negatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vrl_jax import check
from vrl_jax.losses.explicit_axes import with_auto_axes
from vrl_jax.losses.similarity import dot_products, normalize


@with_auto_axes
def nt_xent(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float = 0.1,
    unit: bool = True,
    negatives: Float[Array, "k d"] | None = None,
) -> Float[Array, ""]:
    """NT-Xent: each of the 2n embeddings is matched to its positive among the 2n - 1 others.

    Formula: mean over anchors of `-log softmax(cosines / temperature)[positive]`, both directions.

    Args:
      a: embeddings of one view, row i of video i.
      b: embeddings of another view of the same videos.
      temperature: divides the cosines.
      unit: scale the vectors to unit length first; False uses plain products instead of cosines.
      negatives: further negatives of all anchors.

    Raises:
      ValueError: shapes that do not match, fewer than two videos, or a temperature that is not
        positive.

    Source: Chen et al. 2020 (SimCLR), arXiv 2002.05709, equation 1.

    >>> x = jnp.ones((4, 8))
    >>> print(f"{nt_xent(x, x, temperature=0.5):.4f}")  # ln(2n - 1): all embeddings are equal
    1.9459
    """
    check.rank(2, a=a, b=b)
    check.same_shape(a=a, b=b)
    check.positive(temperature=temperature)
    check.at_least(2, **{"the number of videos": a.shape[0]})
    rows = [a, b] if negatives is None else [a, b, negatives]
    if rows[-1].shape[1:] != a.shape[1:]:
        raise ValueError(f"negatives must have {a.shape[1]} entries, got {rows[-1].shape[1]}")
    z = jnp.concatenate(rows).astype(jnp.float32)
    z = normalize(z) if unit else z
    anchors = z[: 2 * len(a)]
    itself = jnp.eye(len(anchors), len(z), dtype=bool)
    logits = jnp.where(itself, -jnp.inf, dot_products(anchors, z) / temperature)
    return _cross_entropy(logits, jnp.roll(jnp.arange(len(anchors)), len(a)))


@with_auto_axes
def nt_xent_steps(
    a: Float[Array, "n t d"],
    b: Float[Array, "n t d"],
    *,
    temperature: float = 0.1,
    negatives: str = "same_step",
) -> Float[Array, ""]:
    """NT-Xent per time step: step t of one view is matched to step t of the other view.

    Args:
      a: embeddings of the time steps of one view, row i of video i.
      b: embeddings of another view of the same frames.
      temperature: divides the cosines.
      negatives: "same_step" takes the embeddings of other videos at the same step, "all_steps"
        those at all steps. Other steps of the same video are never negatives.

    Raises:
      ValueError: shapes that do not match, fewer than two videos, a temperature that is not
        positive, or an unknown value of `negatives`.

    Source: spatial contrast within clips, Zhang and Crandall 2022 (HDC), arXiv 2011.11261, who do
    not publish how the time axis is treated.

    >>> x = jnp.ones((4, 3, 8))
    >>> print(f"{nt_xent_steps(x, x):.4f}")  # ln(2n - 1)
    1.9459
    """
    check.rank(3, a=a, b=b)
    check.same_shape(a=a, b=b)
    check.positive(temperature=temperature)
    check.one_of(("same_step", "all_steps"), negatives=negatives)
    videos, steps, _ = a.shape
    check.at_least(2, **{"the number of videos": videos})
    z = normalize(jnp.stack([a, b]).astype(jnp.float32))
    cosines = jnp.einsum("vitd,wjsd->vitwjs", z, z, precision="highest")
    view, video, step = jnp.ogrid[:2, :videos, :steps]
    other_view = view[..., None, None, None] != view
    same_video = video[..., None, None, None] == video
    same_step = step[..., None, None, None] == step
    positive = other_view & same_video & same_step
    negative = ~same_video if negatives == "all_steps" else ~same_video & same_step
    logits = jnp.where(positive | negative, cosines / temperature, -jnp.inf)
    rows = logits.reshape(2 * videos * steps, -1)
    return _cross_entropy(rows, jnp.argmax(positive.reshape(rows.shape), axis=-1))


@with_auto_axes
def info_nce(
    queries: Float[Array, "n d"],
    keys: Float[Array, "n d"],
    queue: Float[Array, "k d"] | None = None,
    *,
    temperature: float = 0.1,
    unit: bool = True,
    filled: Int[Array, ""] | None = None,
) -> Float[Array, ""]:
    """InfoNCE: each query is matched to its key among other keys, or among a queue (MoCo).

    Formula: mean over i of `-log exp(q_i.k_i/T) / (exp(q_i.k_i/T) + sum over negatives)`. The
    negatives are the rows of the queue, or without a queue the other rows of `keys`. Pass keys
    through `jax.lax.stop_gradient` where they are targets.

    Args:
      queries: embeddings of one view, row i of video i.
      keys: embeddings of another view of the same videos.
      queue: negatives, or None.
      temperature: divides the cosines.
      unit: scale queries, keys and queue to unit length first.
      filled: number of leading rows of the queue in use; None uses all.

    Raises:
      ValueError: shapes that do not match, or a temperature that is not positive.

    Source: van den Oord et al. 2018, arXiv 1807.03748; He et al. 2020, arXiv 1911.05722.

    >>> q = jnp.eye(4)
    >>> print(f"{info_nce(q, q, jnp.zeros((3, 4)), temperature=1.0):.4f}")  # ln(1 + 3/e)
    0.7437
    """
    check.rank(2, queries=queries, keys=keys)
    check.same_shape(queries=queries, keys=keys)
    check.positive(temperature=temperature)
    scale = normalize if unit else lambda x: x

    def embed(x):
        return scale(x.astype(jnp.float32))

    queries, keys = embed(queries), embed(keys)
    if queue is None:
        return _cross_entropy(dot_products(queries, keys) / temperature, jnp.arange(len(queries)))
    if queue.shape[-1] != queries.shape[-1]:
        raise ValueError(f"queue rows must have {queries.shape[-1]} entries, got {queue.shape[-1]}")
    negatives = dot_products(queries, embed(queue)) / temperature
    if filled is not None:
        negatives = jnp.where(jnp.arange(len(queue)) < filled, negatives, -jnp.inf)
    positives = jnp.sum(queries * keys, axis=-1, keepdims=True) / temperature
    logits = jnp.concatenate([positives, negatives], axis=-1)
    return _cross_entropy(logits, jnp.zeros(len(queries), jnp.int32))


def _cross_entropy(logits: Float[Array, "n m"], labels: Int[Array, "n"]) -> Float[Array, ""]:
    """Return the mean negative log-probability of the labels."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1))
