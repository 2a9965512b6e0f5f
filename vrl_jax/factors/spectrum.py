"""What the Koopman operators of a data set's clips look like in an encoder's frame vectors."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from vrl_jax.losses import koopman


class ClipOperators(NamedTuple):
    """Operators of clips, in reduced form, and how badly they forecast frames that were kept back.

    Attributes:
      matrices: see `koopman.Operator`.
      residuals: see `koopman.forecast_residual`.
    """

    matrices: Float[np.ndarray, "*m n n"]
    residuals: Float[np.ndarray, "*m"]


def fit_operators(frames: Float[np.ndarray, "m t d"], ridge: float) -> ClipOperators:
    """Fit an operator to each clip; there must be at least 5 frame vectors."""
    return ClipOperators(*map(np.asarray, _fit(frames, ridge)))


@jax.jit(static_argnames="ridge")
def _fit(frames: Float[Array, "m t d"], ridge: float):
    residual = partial(koopman.forecast_residual, ridge=ridge)
    return koopman.fit(frames, ridge=ridge).matrix, jax.vmap(residual)(frames)


def describe_spectra(
    operators: ClipOperators, radius: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return results, and the eigenvalues and residuals by name.

    `static` is the share of eigenvalues within `radius` of 1; `angle` the mean turn per frame in
    radians, where an eigenvalue counts as much as it is long: one of nearly 0 has no direction.
    """
    eigenvalues = np.linalg.eigvals(operators.matrices.astype(np.float64)).astype(np.complex64)
    size, turn = np.abs(eigenvalues), np.abs(np.angle(eigenvalues))
    found = {
        "static": (np.mean(np.abs(eigenvalues - 1) <= radius), "share of eigenvalues"),
        "angle": (np.average(turn, weights=size), "radians a frame"),
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
        for name, (value, metric) in found.items()
    ]
    arrays = {"koopman/eigenvalues": eigenvalues, "koopman/residuals": operators.residuals}
    return results, arrays
