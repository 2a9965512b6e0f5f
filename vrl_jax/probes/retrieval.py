"""Nearest-neighbour retrieval: does a test video find training videos of its class?"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vrl_jax import check

QUERIES_AT_ONCE = 256


def nearest_neighbours(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    k: int,
    center: str = "none",
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Return each query's k nearest gallery items by cosine, nearest first, and the similarities.

    Equally near items come in gallery order.

    Args:
      queries: one feature per query, already averaged over its clips.
      gallery: one feature per gallery item.
      k: how many.
      center: what is subtracted before the features are scaled to unit length. "none": nothing;
        "train": the gallery's mean from both; "each": from each set its own mean (as CoCLR and
        DualVar, which lets a query see the other queries).

    Raises:
      ValueError: k is not in [1, g], center is none of the three, or a feature is not finite.
    """
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise ValueError("features must be finite; the encoder has diverged, or a video is broken")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie in [1, {len(gallery)}], the size of the gallery; got {k}")
    queries, gallery = center_features(queries, gallery, center)
    similarity, indices = _nearest(_to_unit(queries), _to_unit(gallery), k)
    return np.asarray(indices), np.asarray(similarity)


def center_features(
    queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], center: str
) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, "g d"]]:
    """Return both sets less what `center` says, see `neighbours`."""
    check.one_of(("none", "train", "each"), center=center)
    if center == "none":
        return queries, gallery
    mean = gallery.mean(axis=0)
    return queries - (queries.mean(axis=0) if center == "each" else mean), gallery - mean


def recall_at(
    queries: Float[np.ndarray, "q d"],
    query_labels: Int[np.ndarray, "q"],
    gallery: Float[np.ndarray, "g d"],
    gallery_labels: Int[np.ndarray, "g"],
    *,
    ks: tuple[int, ...] = (1, 5, 10, 20, 50),
    center: str = "none",
) -> dict[int, float]:
    """Return, for each k, the share of queries with any of their k nearest items of their class.

    Args:
      queries: one feature per test video.
      query_labels: their classes.
      gallery: one feature per training video.
      gallery_labels: their classes.
      ks: how many neighbours may answer.
      center: as in `neighbours`; print it beside the number, it is worth points.

    Raises:
      ValueError: features and labels differ in number, or a k is not in [1, g].
    """
    check.same_shape(queries=queries[:, 0], query_labels=query_labels)
    check.same_shape(gallery=gallery[:, 0], gallery_labels=gallery_labels)
    check.at_least(1, smallest_k=min(ks))
    indices, _ = nearest_neighbours(queries, gallery, max(ks), center)
    hits = gallery_labels[indices] == query_labels[:, None]
    return {k: float(hits[:, :k].any(axis=1).mean()) for k in ks}


@jax.jit(static_argnums=2)
def _nearest(queries: Array, gallery: Array, k: int) -> tuple[Array, Array]:
    """Some queries at a time, so that no q x g matrix is ever held."""

    def rank(query: Array) -> tuple[Array, Array]:
        return tuple(jax.lax.top_k(jnp.matmul(gallery, query, precision="highest"), k))

    return jax.lax.map(rank, queries, batch_size=QUERIES_AT_ONCE)


def _to_unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norm, np.finfo(features.dtype).tiny)
