"""Nearest-neighbour retrieval of training videos with test videos as queries."""

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

    Ties are in gallery order.

    Args:
      queries: one feature per query, averaged over its clips.
      gallery: one feature per gallery item.
      k: number of neighbours.
      center: mean subtracted before l2 normalisation. "none": no mean; "train": the gallery's mean
        from both sets; "each": each set's own mean (as CoCLR and DualVar; a query then depends on
        the other queries).

    Raises:
      ValueError: k is not in [1, g], center is none of the three, or a feature is not finite.
    """
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise ValueError("features must be finite; the encoder has diverged, or a video is damaged")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie in [1, {len(gallery)}], the size of the gallery; got {k}")
    queries, gallery = center_features(queries, gallery, center)
    similarity, indices = _nearest(_to_unit(queries), _to_unit(gallery), k)
    return np.asarray(indices), np.asarray(similarity)


def center_features(
    queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], center: str
) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, "g d"]]:
    """Return both sets centred as `nearest_neighbours` describes."""
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
    """Return R@k for each k: the share of queries with their class among the k nearest items.

    Args:
      queries: one feature per test video.
      query_labels: their classes.
      gallery: one feature per training video.
      gallery_labels: their classes.
      ks: numbers of neighbours.
      center: as in `nearest_neighbours`; report it with the number, which depends on it.

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
    """Rank some queries at a time, so that no q x g matrix is allocated."""

    def rank(query: Array) -> tuple[Array, Array]:
        return tuple(jax.lax.top_k(jnp.matmul(gallery, query, precision="highest"), k))

    return jax.lax.map(rank, queries, batch_size=QUERIES_AT_ONCE)


def _to_unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norm, np.finfo(features.dtype).tiny)
