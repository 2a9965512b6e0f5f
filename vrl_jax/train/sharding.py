"""Data parallelism: the mesh of devices, shardings of state and batch, and compiler options."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any
MIN_SHARDED = 2**14  # elements of an array below which a collective costs more than it saves


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Return a mesh of devices, by default all, along one axis, "data", ordered by host."""
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that are split along their first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(mesh: Mesh, state: Tree) -> Tree:
    """Return shardings that split a state over the devices of a mesh.

    An array is split along the largest axis that the number of devices divides, the first of equal
    ones. It is replicated if it has fewer than `MIN_SHARDED` elements or no such axis.

    Args:
      mesh: devices.
      state: tree of arrays or shapes.
    """

    def sharding(x) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % mesh.size == 0]
        if math.prod(x.shape) < MIN_SHARDED or not axes:
            return replicated_sharding(mesh)
        axis = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

    return jax.tree.map(sharding, state)


def gather(tree: Tree, mesh: Mesh) -> Tree:
    """Return a tree, inside `jit`, with every array whole on every device."""
    return jax.lax.with_sharding_constraint(tree, replicated_sharding(mesh))


def gather_params(mesh: Mesh, layout: Tree) -> Callable[[Tree], Tree]:
    """Return `gather` for parameters that are split by `layout`; their gradients are split alike.

    The transpose of a sharding constraint is the same constraint, which would make every gradient
    whole on every device.
    """

    @jax.custom_vjp
    def gather_all(params: Tree) -> Tree:
        return gather(params, mesh)

    def split(_: None, grads: Tree) -> tuple[Tree]:
        return (jax.lax.with_sharding_constraint(grads, layout),)

    gather_all.defvjp(lambda params: (gather(params, mesh), None), split)
    return gather_all


def device_bytes(tree: Tree) -> int:
    """Return the bytes that arrays, or shapes with shardings, occupy on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Return compiler options for `jax.jit`, empty except on CPU.

    On CPU they restrict XLA's kernel library YNNPACK to reductions, since gradients of convolutions
    take several times as long in it as in XLA's own kernels; and they keep optimisation barriers
    until after fusion, for `vrl_jax.encoders.layers.materialize`.
    """
    return _cpu_options() if mesh.devices.flat[0].platform == "cpu" else {}


@functools.cache
def _cpu_options() -> dict[str, str]:
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
        "xla_disable_hlo_passes": "cse_barrier_expander",
    }
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(jax.lax.optimization_barrier, compiler_options=options).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:  # this XLA has no such library, or needs the pass
            return {}
    return options


def shard_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Return the global array, split along its first axis, from the `rows` of this process."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def gather_on_hosts(tree: Tree) -> Tree:
    """Return whole arrays, as NumPy arrays on every host; every host must call it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def any_process(flags: np.ndarray) -> np.ndarray:
    """Return the flags that are set on any process."""
    if jax.process_count() == 1:
        return flags
    return multihost_utils.process_allgather(flags).any(0)


def check_batch(mesh: Mesh, name: str, batch: int) -> None:
    """Raise `ValueError` unless `batch` videos can be split evenly over the mesh's devices."""
    if batch < 1 or batch % mesh.size:
        near = max(round(batch / mesh.size), 1) * mesh.size
        raise ValueError(
            f"{name} must be a multiple of the {mesh.size} devices, got {batch}: "
            f"try --config.{name}={near}"
        )
