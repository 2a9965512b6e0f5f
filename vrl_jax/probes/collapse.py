"""Indicators of representation collapse."""

import numpy as np
from jaxtyping import Float

from vrl_jax import check


def collapse_metrics(features: Float[np.ndarray, "n d"]) -> dict[str, float]:
    """Return the spread and the effective rank of a set of features.

    - feature_std: standard deviation of the l2-normalised features, averaged over dimensions,
      times √d. 1 for isotropic directions, 0 for identical ones.
    - effective_rank: exp of the entropy of the singular values of the centred features,
      normalised to sum 1 (Roy & Vetterli, EUSIPCO 2007). Between 1 and min(n - 1, d).

    Raises:
      ValueError: fewer than two features, or features that are not finite.
    """
    check.at_least(2, **{"the number of features": len(features)})
    if not np.isfinite(features).all():
        raise ValueError("features must be finite; the encoder has diverged")
    features = features.astype(np.float64)
    tiny = np.finfo(np.float64).tiny
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), tiny)
    singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    share = np.maximum(singular / max(singular.sum(), tiny), tiny)
    return {
        "feature_std": float(unit.std(axis=0).mean() * np.sqrt(features.shape[1])),
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())),
    }
