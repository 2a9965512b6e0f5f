"""Norms, unit vectors and cosine similarity."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses.explicit_axes import with_auto_axes


def normalize(x: Float[Array, "*b d"], *, eps: float = 1e-12) -> Float[Array, "*b d"]:
    """Scale vectors to unit length; the zero vector stays zero, with a finite gradient.

    >>> normalize(jnp.array([3.0, 4.0]))
    Array([0.6, 0.8], dtype=float32)
    """
    return x / safe_norm(x, eps=eps)


def safe_norm(x: Float[Array, "*b d"], *, eps: float = 1e-12) -> Float[Array, "*b 1"]:
    """Return `sqrt(|x|^2 + eps)`, keeping the last axis: the gradient at zero is finite.

    >>> safe_norm(jnp.array([3.0, 4.0]))
    Array([5.], dtype=float32)
    """
    return jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)


@with_auto_axes
def dot_products(a: Float[Array, "*n d"], b: Float[Array, "m d"]) -> Float[Array, "*n m"]:
    """Return the product of every row of `a` with every row of `b`, at full float32 precision.

    Accelerators reduce the precision of a plain matrix product, to bfloat16 on TPUs.

    >>> dot_products(jnp.array([[3.0, 4.0]]), jnp.eye(2))
    Array([[3., 4.]], dtype=float32)
    """
    return jnp.matmul(a, b.T, precision="highest")


@with_auto_axes
def negative_cosine(p: Float[Array, "*b d"], z: Float[Array, "*b d"]) -> Float[Array, ""]:
    """Return minus the mean cosine between matching vectors, in [-1, 1].

    Wrap a target in `jax.lax.stop_gradient`. BYOL's loss is `2 + 2 * negative_cosine(p, z)`.

    >>> x = jnp.eye(3)
    >>> print(f"{negative_cosine(x, 5 * x):.3f}")
    -1.000
    """
    check.same_shape(p=p, z=z)
    return -jnp.mean(jnp.sum(normalize(p) * normalize(z), axis=-1))
