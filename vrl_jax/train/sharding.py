"""Data parallelism: the mesh of devices, shardings of state and batch, and compiler options."""

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


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
