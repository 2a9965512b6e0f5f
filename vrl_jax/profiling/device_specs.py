"""Published specifications of TPU chips, and devices to compile for that are not attached.

libtpu can describe a TPU slice without hardware, so its compiler runs on any machine.
"""

import importlib.util
import math
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from vrl_jax import check


@dataclass(frozen=True)
class Chip:
    """Specification of one chip.

    Attributes:
      memory: bytes available to a program.
      flops: peak bfloat16 operations per second.
      bandwidth: memory bandwidth, bytes per second.
      links: total bandwidth of sending to neighbours, bytes per second.
    """

    memory: float
    flops: float
    bandwidth: float
    links: float

    def __post_init__(self):
        check.positive(**vars(self))


# Peak, bandwidth and links are from Google's pages (cloud.google.com/tpu/docs/v4, v5e, v5p and v6e,
# read in 2026). Published link bandwidths count both directions, `links` one. The page of v4 has no
# link bandwidth: the value here is a pod's all-reduce bandwidth, 1.1 PB/s, divided by its 4096
# chips; the same rule reproduces v5e and v6e exactly. Memory is the amount that the compiler of
# libtpu 0.0.42 reports as available when a program is too large (16, 32, 95 and 32 GB on the
# pages).
CHIPS = {
    "v4": Chip(memory=30.75 * 2**30, flops=275e12, bandwidth=1200e9, links=269e9),
    "v5e": Chip(memory=15.75 * 2**30, flops=197e12, bandwidth=819e9, links=200e9),
    "v5p": Chip(memory=95.74 * 2**30, flops=459e12, bandwidth=2765e9, links=600e9),
    "v6e": Chip(memory=31.25 * 2**30, flops=918e12, bandwidth=1600e9, links=400e9),
}
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}  # `device_kind` as JAX reports it

COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not query a metadata server for this machine's TPU
    "TPU_WORKER_HOSTNAMES": "localhost",  # no warning about unknown peers
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is locked: other processes may compile as well
}


def find_chip(kind: str) -> Chip | None:
    """Return the specification of a device by its `device_kind`, None where unknown."""
    return CHIPS[KINDS[kind]] if kind in KINDS else None


def tpu_slice(name: str) -> list[jax.Device]:
    """Return the chips of a slice such as 'v5e:4x4', for compilation only.

    A v4 chip is one device in JAX, which libtpu calls megacore.

    Raises:
      ValueError: the chip or shape is unknown, or libtpu is not installed.
    """
    chip, _, shape = name.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        raise ValueError(
            f"topology must be one of {', '.join(CHIPS)} and a shape, such as v5e:4x4 or "
            f"v5p:2x2x4, got {name!r}"
        )
    if not importlib.util.find_spec("libtpu"):
        raise ValueError(
            f"topology {name!r} needs the TPU compiler: pip install 'vrl-jax[tpu]' (it runs "
            "without a TPU)"
        )
    jax.config.update("jax_platforms", "cpu")  # do not lock an attached TPU
    os.environ.update(COMPILE_ONLY)
    special = {"chip_config_name": "megacore"} if chip == "v4" else {}
    if math.prod(map(int, shape.split("x"))) == 1:
        special["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(name, "tpu", **special).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu rejects topology {name!r}: {error}") from error


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
