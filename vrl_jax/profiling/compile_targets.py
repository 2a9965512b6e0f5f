"""Devices to compile for that are not attached: TPU slices, GPUs, and simulated CPU devices.

libtpu can describe a TPU slice without hardware, and JAX's CUDA plugin a GPU without a driver, so
their compilers run on any machine.
"""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from vrl_jax import check
from vrl_jax.profiling.device_specs import CHIPS, GPUS, Gpu

COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not query a metadata server for this machine's TPU
    "TPU_WORKER_HOSTNAMES": "localhost",  # no warning about unknown peers
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is locked: other processes may compile as well
}

# Slices that Google offers, by the pages that `device_specs` names: of v5e and v6e all, of the
# others those within a cube of 4 x 4 x 4 chips. For other shapes libtpu may end the process.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_CHIPS_OF_POD = {"v4": 4096, "v5p": 6144, "tpu7x": 9216}

# By compute capability: threads per core, lanes per core, shared memory per core and per block.
# From the table of technical specifications in NVIDIA's CUDA programming guide.
_CORES = {
    (7, 0): (2048, 64, 98304, 98304),
    (7, 5): (1024, 64, 65536, 65536),
    (8, 0): (2048, 64, 167936, 166912),
    (8, 6): (1536, 128, 102400, 101376),
    (8, 9): (1536, 128, 102400, 101376),
    (9, 0): (2048, 128, 233472, 232448),
    (10, 0): (2048, 128, 233472, 232448),
    (12, 0): (1536, 128, 102400, 101376),
}


def compile_devices(name: str) -> list[jax.Device]:
    """Return the devices of a TPU slice such as 'v5e:4x4', or of GPUs such as 'h100:8'.

    'h100' is one GPU, 'h100:8' one host of eight, and 'h100:2x8' two hosts of eight. A v4 chip is
    one device in JAX, which libtpu calls megacore; a TPU7x chip is two.

    Raises:
      ValueError: the device or shape is unknown, or its compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind in GPUS:
        return _gpus(name, GPUS[kind], shape or "1")
    if kind in CHIPS:
        return _tpu_slice(name, kind, shape)
    raise ValueError(
        f"topology must be a TPU slice, such as v5e:4x4 or v5p:2x2x4 ({', '.join(CHIPS)}), or GPUs,"
        f" such as h100, h100:8 or h100:2x8 ({', '.join(GPUS)}), got {name!r}"
    )


def simulated_devices(devices: int) -> list[jax.Device]:
    """Return simulated CPU devices; must be called before JAX initialises its devices.

    Raises:
      ValueError: the number is below one, or JAX has initialised its devices.
    """
    check.at_least(1, devices=devices)
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:
        raise ValueError(f"the number of devices cannot be set to {devices}: {error}") from error
    return jax.devices()


def check_slice(chip: str, shape: str) -> None:
    """Raise `ValueError` unless a generation of TPUs is offered in slices of a shape."""
    if chip in _CHIPS_OF_POD:
        limit = _CHIPS_OF_POD[chip]
        sides = (
            [int(side) for side in shape.split("x")] if re.fullmatch(r"\d+(x\d+)+", shape) else []
        )
        multiples = len(sides) == 3 and sides == sorted(sides) and not any(n % 4 for n in sides)
        offered = shape in _CUBES or (multiples and 0 < math.prod(sides) <= limit)
        shapes = f"{', '.join(_CUBES)}, or ascending multiples of 4 up to {limit:,} chips"
    else:
        offered, shapes = shape in _FLAT, ", ".join(_FLAT)
    if not offered:
        raise ValueError(f"slices of {chip} have the shapes {shapes}, got {shape!r}")


def gpu_target(gpu: Gpu) -> str:
    """Return the description of a GPU that XLA compiles for, a GpuTargetConfigProto as text."""
    threads, lanes, shared, shared_per_block = _CORES[gpu.capability]
    major, minor = gpu.capability
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.kind}"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 8 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {gpu.cores}
          fpus_per_core: {lanes}
          clock_rate_ghz: {gpu.clock}
          l2_cache_size: {round(gpu.cache * 2**20)}
          device_memory_size: {round(gpu.memory * 2**30)}
          memory_bandwidth: {round(gpu.bandwidth * 1e9)}
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: {threads}
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: {shared_per_block}
          shared_memory_per_core: {shared}
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
        }}
    """


def _tpu_slice(name: str, chip: str, shape: str) -> list[jax.Device]:
    check_slice(chip, shape)
    if not importlib.util.find_spec("libtpu"):
        raise ValueError(
            f"topology {name!r} needs the TPU compiler: pip install 'vrl-jax[tpu]' (it runs "
            "without a TPU)"
        )
    jax.config.update("jax_platforms", "cpu")  # do not lock an attached TPU
    os.environ.update(COMPILE_ONLY)
    special = {"chip_config_name": "megacore"} if chip == "v4" else {}
    if shape == "1x1":
        special["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(name, "tpu", **special).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu rejects topology {name!r}: {error}") from error


def _gpus(name: str, gpu: Gpu, shape: str) -> list[jax.Device]:
    if not (match := re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", shape)):
        raise ValueError(
            f"topology must be a GPU with devices, or hosts x devices, such as h100:8 or h100:2x8, "
            f"got {name!r}"
        )
    if not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        raise ValueError(
            f"topology {name!r} needs the GPU compiler: pip install 'vrl-jax[preflight]' (it runs "
            "without a GPU)"
        )
    jax.config.update("jax_platforms", "cpu")  # look neither for a GPU nor for CUDA
    hosts, devices = match[1] or "1", match[2]
    try:
        topology = topologies.get_topology_desc(
            name, "cuda", target_config=gpu_target(gpu), topology=f"{hosts}x1x{devices}"
        )
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(f"JAX's CUDA plugin rejects topology {name!r}: {error}") from error
    return list(topology.devices)
