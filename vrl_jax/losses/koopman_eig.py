"""Koopman filters from eigenvectors, computed on the host in float64, for parity.

They run on CPU and GPU hosts and have no gradient. The default filter does not need them and runs
on every backend.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

CUTOFF = 1e-4  # relative, on singular values in the pseudo-inverse of the released code


def hard_filter(matrix: Float[Array, "*b n n"], *, radius: float) -> Float[Array, "*b n n"]:
    """Return the spectral projector on the eigenvalues within `radius` of 1.

    >>> print(hard_filter(jnp.diag(jnp.array([1.05, 0.5])), radius=0.1).diagonal())
    [1. 0.]
    """

    def project(matrix):
        values, vectors = np.linalg.eig(np.asarray(matrix, np.float64))
        static = vectors * (np.abs(values - 1) <= radius)[..., None, :]
        return (static @ np.linalg.inv(vectors)).real.astype(np.float32)

    return _on_host(project, matrix, (matrix.shape,))


def released_code_operators(
    unit_frames: Float[Array, "*b t d"], *, radius: float
) -> tuple[Float[Array, "*b d d"], Float[Array, "*b d d"]]:
    """Return the static and the dynamic operator that the released code applies to every frame.

    K is the least-squares operator without ridge. Its eigenvectors, in LAPACK's order, are replaced
    by the unitary factor of their QR decomposition, and the real part of each masked operator is
    taken.
    """

    def maps(frames):
        z = np.swapaxes(np.asarray(frames, np.float64), -1, -2)
        operator = z[..., 1:] @ np.linalg.pinv(z[..., :-1], CUTOFF)
        values, vectors = np.linalg.eig(operator)
        unitary = np.linalg.qr(vectors)[0]
        keep = np.abs(values - 1) <= radius
        back = np.conj(np.swapaxes(unitary, -1, -2))
        return tuple(
            ((unitary * np.where(mask, values, 0)[..., None, :]) @ back).real.astype(np.float32)
            for mask in (keep, ~keep)
        )

    shape = (*unit_frames.shape[:-2], unit_frames.shape[-1], unit_frames.shape[-1])
    return _on_host(maps, unit_frames, (shape, shape))


def _on_host(function, array, shapes):
    """Call a NumPy function of one array from a traced computation, without gradient."""
    specs = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    specs = specs if len(specs) > 1 else specs[0]
    return jax.pure_callback(
        function, specs, jax.lax.stop_gradient(array), vmap_method="expand_dims"
    )
