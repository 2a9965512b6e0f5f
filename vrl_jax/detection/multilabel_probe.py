"""Linear classifiers of items that have any number of labels, chosen without the test set."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vrl_jax.probes import linear_fit
from vrl_jax.probes.linear_probe import LinearProbe, hold_out


class MultiLabelResult(NamedTuple):
    """Test items' logits, and the setting that was chosen by its score on held-out items.

    Logits keep the order of the surest items, whose probabilities are all rounded to 1.
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
    """Choose a setting on a slice of train, refit it on all of train, predict once.

    The loss is the sigmoid cross-entropy, mean over items and sum over labels, + λ/2 ‖W‖². All
    settings are trained at once.

    Args:
      train_features: one per training item.
      train_labels: which labels it has.
      test_features: one per test item.
      groups: which video each training item is from; the held-out slice is of whole groups.
      score: of logits f32[k c] of the held-out items, whose mask bool[n] comes second.
      settings: what to try.

    Raises:
      ValueError: there are fewer than two groups, or every setting diverged.
    """
    everything = np.ones(len(train_features), bool)
    held = hold_out(groups, everything, groups, settings)
    grid = [(rate, decay) for rate in settings.learning_rates for decay in settings.weight_decays]
    targets = train_labels.astype(np.float32)
    given = targets.shape[1], _cross_entropy, settings

    def fit(mask, grid):
        return linear_fit.fit_heads(
            train_features, targets, mask, *np.array(grid, np.float32).T, *given
        )

    tried = linear_fit.score_heads(fit(~held, grid), train_features[held])
    scores = [score(each, held) if np.isfinite(each).all() else -1.0 for each in tried]
    best = int(np.argmax(scores))
    logits = linear_fit.score_heads(fit(everything, grid[best : best + 1]), test_features)[0]
    if scores[best] < 0 or not np.isfinite(logits).all():
        raise ValueError(
            f"logits are not finite: lower learning_rates {settings.learning_rates}, or "
            "look for the features that are not finite"
        )
    return MultiLabelResult(logits, *grid[best], float(scores[best]))


def _cross_entropy(logits: Array, targets: Array) -> Array:
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(1)
