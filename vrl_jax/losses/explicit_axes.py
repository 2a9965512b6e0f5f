"""Losses of arrays on explicit mesh axes, which `jax.make_mesh` makes by default."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

Loss = TypeVar("Loss", bound=Callable)


def with_auto_axes(loss: Loss) -> Loss:
    """Let XLA choose the shardings inside a loss also where its arrays are on explicit axes.

    JAX refuses to infer the sharding of products between the rows of a sharded batch on such axes.
    The results are replicated. On other meshes, or on none, the loss is called as it is.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> rows = jax.device_put(jnp.eye(4), jax.NamedSharding(mesh, jax.P("data")))
    >>> print(f"{with_auto_axes(lambda x: jnp.sum(x @ x.T))(rows):.0f}")
    4
    """

    @functools.wraps(loss)
    def call(*args, **kwargs):
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}
        meshes = (jax.typeof(array).sharding.mesh for array in arrays.values())
        mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
        if mesh is None:
            return loss(*args, **kwargs)

        def call_again(arrays):
            args, kwargs = tree.unflatten([arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
            return loss(*args, **kwargs)

        replicated = NamedSharding(mesh, PartitionSpec())
        return jax.sharding.auto_axes(call_again, axes=mesh.explicit_axes, out_sharding=replicated)(
            arrays
        )

    return call
