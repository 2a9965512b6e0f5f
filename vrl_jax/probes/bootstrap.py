"""Intervals of mean accuracies by a bootstrap over groups of videos."""

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES, LEVEL = 1000, 0.95


def bootstrap_interval(
    values: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"], groups: Int[np.ndarray, "n"]
) -> list[float]:
    """Return the 95 % percentile interval of the mean.

    Whole groups are drawn with replacement, since videos of one source or person are not
    independent. The same groups give the same draws, so that intervals are reproducible.

    Args:
      values: one per video, such as whether it is predicted correctly.
      groups: the group of each video; distinct numbers make the videos independent.
    """
    _, members = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(members, values.astype(float)), np.bincount(members)
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()


def describe_interval(
    values: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"], groups: Int[np.ndarray, "n"] | None
) -> dict[str, list[float]]:
    """Return the entry of a result for `bootstrap_interval`; empty without groups."""
    return {} if groups is None else {"interval": bootstrap_interval(values, groups)}
