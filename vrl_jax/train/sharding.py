"""Where arrays live, state on every device and videos spread over them; how programs compile."""

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Return a mesh of all devices (or the given ones) along one axis, "data", host after host."""
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the placement of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the placement of what is split along its first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Return what the compiler is told beyond its defaults, for `jax.jit`.

    On CPU it is to leave reductions alone to its kernel library, YNNPACK, in which gradients of
    convolutions take several times as long as in XLA's own kernels, and to keep optimisation
    barriers until it has chosen what to compute together (`vrl_jax.encoders.layers.materialize`).
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
        except jax.errors.JaxRuntimeError:  # an XLA that has no such library, or needs the pass
            return {}
    return options


def shard_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Return the global array of which this process holds `rows`, split along its first axis."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def any_process(flags: np.ndarray) -> np.ndarray:
    """Return which of the flags are set on any of the processes."""
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
