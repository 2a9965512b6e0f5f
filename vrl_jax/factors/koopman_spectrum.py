"""Koopman spectra of a dataset's clips in the frame features of an encoder."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from vrl_jax.losses import koopman


class ClipOperators(NamedTuple):
    """Reduced operators of clips, and their errors in forecasting held-out frames.

    Attributes:
      matrices: see `koopman.Operator`.
      residuals: see `koopman.forecast_residual`.
    """

    matrices: Float[np.ndarray, "*m n n"]
    residuals: Float[np.ndarray, "*m"]


def fit_operators(frames: Float[np.ndarray, "m t d"], ridge: float) -> ClipOperators:
    """Fit an operator to each clip of at least 5 frame features."""
    return ClipOperators(*map(np.asarray, _fit(frames, ridge)))


@jax.jit(static_argnames="ridge")
def _fit(frames: Float[Array, "m t d"], ridge: float):
    residual = partial(koopman.forecast_residual, ridge=ridge)
    return koopman.fit(frames, ridge=ridge).matrix, jax.vmap(residual)(frames)


def describe_spectra(
    operators: ClipOperators, radius: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return results, and the eigenvalues and residuals by name.

    `static` is the share of eigenvalues within `radius` of 1. `angle` is the mean rotation per
    frame in radians, weighted by |λ|, since an eigenvalue near 0 has no direction.
    """
    eigenvalues = np.linalg.eigvals(operators.matrices.astype(np.float64)).astype(np.complex64)
    modulus, angle = np.abs(eigenvalues), np.abs(np.angle(eigenvalues))
    summary = {
        "static": (np.mean(np.abs(eigenvalues - 1) <= radius), "share of eigenvalues"),
        "angle": (np.average(angle, weights=modulus), "radians per frame"),
        "residual": (np.mean(operators.residuals), "squared forecast error"),
    }
    results = [
        {
            "name": f"koopman/{name}",
            "label": "clips",
            "value": float(value),
            "metric": metric,
            "radius": radius,
        }
        for name, (value, metric) in summary.items()
    ]
    arrays = {"koopman/eigenvalues": eigenvalues, "koopman/residuals": operators.residuals}
    return results, arrays
