"""Weighted k-nearest-neighbour classification."""

import numpy as np
from jaxtyping import Float, Int

from vrl_jax import check
from vrl_jax.probes import retrieval


def knn_accuracy(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, "n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, "m"],
    *,
    k: int = 20,
    temperature: float = 0.07,
    center: str = "none",
) -> float:
    """Return the accuracy of a kNN classifier with cosine similarity.

    A neighbour votes for its class with weight exp(similarity / temperature) (Wu et al., CVPR
    2018).

    Args:
      train_features: one per training video.
      train_labels: their classes.
      test_features: one per test video.
      test_labels: their classes.
      k: number of neighbours.
      temperature: of the votes.
      center: as in `retrieval.nearest_neighbours`.

    Raises:
      ValueError: features and labels differ in number, or k is not in [1, n].
    """
    check.positive(temperature=temperature)
    check.same_shape(train_features=train_features[:, 0], train_labels=train_labels)
    check.same_shape(test_features=test_features[:, 0], test_labels=test_labels)
    indices, similarity = retrieval.nearest_neighbours(test_features, train_features, k, center)
    classes, train_classes = np.unique(train_labels, return_inverse=True)
    weights = np.exp((similarity - similarity[:, :1]) / temperature)  # relative: cannot overflow
    votes = np.zeros((len(test_labels), len(classes)))
    np.add.at(votes, (np.arange(len(votes))[:, None], train_classes[indices]), weights)
    return float((classes[votes.argmax(axis=1)] == test_labels).mean())
