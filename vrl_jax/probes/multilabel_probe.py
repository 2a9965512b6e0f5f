"""Multi-label linear probes; hyperparameters are selected on held-out training data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vrl_jax.probes import linear_fit
from vrl_jax.probes.linear_probe import LinearProbe, hold_out


class MultiLabelResult(NamedTuple):
    """Logits of the test items, and the hyperparameters selected by the score on held-out items.

    Logits, unlike probabilities, keep the order of very confident predictions.
    """

    logits: Float[np.ndarray, "m c"]
    learning_rate: float
    weight_decay: float
    held_out_score: float


def fit_multilabel_probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Bool[np.ndarray, "n c"],
    test_features: Float[np.ndarray, "m d"],
    *,
    groups: Int[np.ndarray, "n"],
    score: Callable[[np.ndarray, np.ndarray], float],
    settings: LinearProbe,
) -> MultiLabelResult:
    """Select hyperparameters on held-out training items, refit on all of them, predict once.

    The loss is the sigmoid cross-entropy, mean over items and sum over labels, + λ/2 ‖W‖². All
    hyperparameters are trained at once.

    Args:
      train_features: one per training item.
      train_labels: the labels of each item.
      test_features: one per test item.
      groups: the video of each training item; the held-out split consists of whole groups.
      score: function of the logits f32[k c] of the held-out items and of their mask bool[n].
      settings: the hyperparameters.

    Raises:
      ValueError: there are fewer than two groups, or training diverged for all hyperparameters.
    """
    all_items = np.ones(len(train_features), bool)
    held_out = hold_out(groups, all_items, groups, settings)
    grid = [(rate, decay) for rate in settings.learning_rates for decay in settings.weight_decays]
    targets = train_labels.astype(np.float32)

    def fit(mask, grid):
        rates, decays = np.array(grid, np.float32).T
        return linear_fit.fit_heads(
            train_features, targets, mask, rates, decays, targets.shape[1], _cross_entropy, settings
        )

    heads = linear_fit.score_heads(fit(~held_out, grid), train_features[held_out])
    scores = [score(logits, held_out) if np.isfinite(logits).all() else -1.0 for logits in heads]
    best = int(np.argmax(scores))
    logits = linear_fit.score_heads(fit(all_items, grid[best : best + 1]), test_features)[0]
    if scores[best] < 0 or not np.isfinite(logits).all():
        raise ValueError(
            f"logits are not finite: lower learning_rates {settings.learning_rates}, or check the "
            "features for values that are not finite"
        )
    return MultiLabelResult(logits, *grid[best], float(scores[best]))


def mean_average_precision(
    scores: Float[np.ndarray, "m c"], labels: Bool[np.ndarray, "m c"]
) -> float:
    """Return the mean over classes of the average precision; classes without items are left out.

    The average precision of a class is the sum over its items, in the order of their scores, of
    1 / (number of its items) times the fraction of its items among those of at least that score.

    Args:
      scores: of each item for each class, such as logits.
      labels: the classes of each item.

    Raises:
      ValueError: no class has an item.
    """
    precisions = []
    for score, mask in zip(scores.T, labels.T, strict=True):
        if mask.any():
            ordered = np.sort(score)
            above = len(score) - np.searchsorted(ordered, score[mask])
            hits = mask.sum() - np.searchsorted(np.sort(score[mask]), score[mask])
            precisions.append(np.mean(hits / above))
    if not precisions:
        raise ValueError("average precision needs items of at least one class")
    return float(np.mean(precisions))


def chance_precision(labels: Bool[np.ndarray, "m c"]) -> float:
    """Return the expected precision of a random order: the mean share of items of a class."""
    return float(labels.mean(0)[labels.any(0)].mean())


def _cross_entropy(logits: Array, targets: Array) -> Array:
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(1)
