"""Batched solution of small linear systems in plain JAX operations.

XLA's CPU backend can deadlock when a jitted training step calls batched LAPACK, and on accelerators
one kernel per matrix costs more than the arithmetic of these systems (n is at most 31 for a clip of
32 frames). Elimination over the whole batch has neither problem.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax.losses.explicit_axes import with_auto_axes


@jax.jit
def solve_batch(a: Float[Array, "*b n n"], b: Float[Array, "*b n m"]) -> Float[Array, "*b n m"]:
    """Solve `a x = b` for each matrix of a batch; a gradient costs two more solves.

    The function is jitted because JAX recompiles `custom_linear_solve` at every call outside `jit`.

    Args:
      a: non-singular matrices, float32.
      b: right-hand sides as columns.

    >>> solve_batch(2 * jnp.eye(2), jnp.ones((2, 1))).ravel()
    Array([0.5, 0.5], dtype=float32)
    """
    return jax.lax.custom_linear_solve(
        lambda x: jnp.matmul(a, x, precision="highest"),
        b,
        solve=lambda _, rhs: _eliminate(a, rhs),
        transpose_solve=lambda _, rhs: _eliminate(jnp.swapaxes(a, -1, -2), rhs),
    )


@jax.custom_jvp
def invert_batch(a: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    """Invert each matrix of a batch; gradients are products with the inverse, without a solve.

    Args:
      a: non-singular matrices, float32.

    >>> invert_batch(2 * jnp.eye(2))
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    return _eliminate(a, jnp.broadcast_to(jnp.eye(a.shape[-1]), a.shape))


@invert_batch.defjvp
def _invert_batch_jvp(primals, tangents):
    inverse = invert_batch(*primals)
    product = jnp.matmul(*tangents, inverse, precision="highest")
    return inverse, -jnp.matmul(inverse, product, precision="highest")


def _eliminate(a: Float[Array, "*b n n"], b: Float[Array, "*b n m"]) -> Float[Array, "*b n m"]:
    """Gauss-Jordan elimination with partial pivoting."""
    n = a.shape[-1]
    rows = jnp.arange(n)

    def clear_column(k, system):
        column = jax.lax.dynamic_index_in_dim(system, k, axis=-1, keepdims=False)
        pivot = jnp.argmax(jnp.where(rows >= k, jnp.abs(column), -1.0), axis=-1)[..., None]
        order = jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))
        system = jnp.take_along_axis(system, order[..., None], axis=-2)
        column = jax.lax.dynamic_index_in_dim(system, k, axis=-1)
        row = jax.lax.dynamic_index_in_dim(system, k, axis=-2)
        row = row / jax.lax.dynamic_index_in_dim(row, k, axis=-1)
        return jnp.where((rows == k)[:, None], row, system - column * row)

    system = jnp.concatenate([a, b], axis=-1)
    return jax.lax.fori_loop(0, n, clear_column, system)[..., n:]


@with_auto_axes
def ridge_map(
    past: Float[Array, "*b n d"], future: Float[Array, "*b n d"], ridge: float | Float[Array, "*b"]
) -> Float[Array, "*b d d"]:
    """Return the matrix A that minimises `|past A - future|^2 + ridge |A|^2`; rows are vectors.

    The systems to solve are d x d for any number of rows.
    """
    gram, cross = (
        jnp.einsum("...ni,...nj->...ij", past, rows, precision="highest") for rows in (past, future)
    )
    return solve_batch(gram + jnp.asarray(ridge)[..., None, None] * jnp.eye(past.shape[-1]), cross)
