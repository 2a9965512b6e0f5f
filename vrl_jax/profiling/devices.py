"""TPU chips by their published figures, and devices to compile for that are not there.

A slice of a TPU is described by libtpu alone, so that its compiler runs on any machine.
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
    """What one chip has.

    Attributes:
      memory: bytes that a program may use.
      flops: bfloat16 operations a second at the peak.
      bandwidth: bytes a second between memory and cores.
      links: bytes a second that it sends to its neighbours, over all its links together.
    """

    memory: float
    flops: float
    bandwidth: float
    links: float

    def __post_init__(self):
        check.positive(**vars(self))


# Peak, bandwidth and links are those of Google's pages (cloud.google.com/tpu/docs/v4, v5e, v5p and
# v6e, read in 2026); a link's published number counts both directions, `links` one. The page of v4
# gives no links: this is a pod's all-reduce bandwidth, 1.1 PB/s, over its 4096 chips, a rule by
# which v5e and v6e come out exactly. Memory is what the compiler of libtpu 0.0.42 reports as
# available when a program is too large: 16, 32, 95 and 32 GB by the pages.
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
    "TPU_SKIP_MDS_QUERY": "1",  # ask no metadata server which TPU this machine has
    "TPU_WORKER_HOSTNAMES": "localhost",  # nor complain that none has told its peers
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is taken: others may compile as well
}


def find_chip(kind: str) -> Chip | None:
    """Return the figures of a device by its `device_kind`, if it is one of `CHIPS`."""
    return CHIPS[KINDS[kind]] if kind in KINDS else None


def tpu_slice(name: str) -> list[jax.Device]:
    """Return the chips of a slice, 'v5e:4x4': they can be compiled for, not computed on.

    JAX sees a v4 chip as one device, which libtpu calls megacore.

    Raises:
      ValueError: no such chip or shape, or libtpu is not installed.
    """
    chip, _, shape = name.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        raise ValueError(
            f"topology must be one of {', '.join(CHIPS)} and a shape, as v5e:4x4 or v5p:2x2x4, "
            f"got {name!r}"
        )
    if not importlib.util.find_spec("libtpu"):
        raise ValueError(
            f"topology {name!r} needs the TPU's compiler: pip install 'vrl-jax[tpu]' (it runs "
            "without a TPU)"
        )
    jax.config.update("jax_platforms", "cpu")  # where there is a TPU, it is left to others
    os.environ.update(COMPILE_ONLY)
    special = {"chip_config_name": "megacore"} if chip == "v4" else {}
    if math.prod(map(int, shape.split("x"))) == 1:
        special["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(name, "tpu", **special).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"topology {name!r} is refused by libtpu: {error}") from error


def simulated_devices(devices: int) -> list[jax.Device]:
    """Return CPU devices to compile for; they must be the first that this process asks for.

    Raises:
      ValueError: fewer than one, or JAX has devices already.
    """
    check.at_least(1, devices=devices)
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:
        raise ValueError(f"devices cannot be {devices} now: {error}") from error
    return jax.devices()
