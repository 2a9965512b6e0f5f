"""Published specifications of TPU chips and GPUs."""

import os
from dataclasses import dataclass

from vrl_jax import check


@dataclass(frozen=True)
class Chip:
    """Specification of one device as JAX counts them: a chip, or on TPU7x half of one.

    Attributes:
      memory: bytes available to a program.
      flops: peak bfloat16 operations per second, without sparsity.
      bandwidth: memory bandwidth, bytes per second.
      links: total bandwidth of sending to neighbours, bytes per second.
    """

    memory: float
    flops: float
    bandwidth: float
    links: float

    def __post_init__(self):
        check.positive(**vars(self))


@dataclass(frozen=True)
class Gpu:
    """A GPU, with what its compiler needs to know.

    Attributes:
      kind: `device_kind` as JAX reports it.
      capability: CUDA compute capability.
      cores: streaming multiprocessors.
      clock: boost clock, GHz.
      cache: L2 cache, MiB.
      memory: of the card, GiB.
      flops: peak, 10^12 operations per second, as in `Chip`.
      bandwidth: of the memory, 10^9 bytes per second.
      links: 10^9 bytes per second, as in `Chip`.
    """

    kind: str
    capability: tuple[int, int]
    cores: int
    clock: float
    cache: float
    memory: float
    flops: float
    bandwidth: float
    links: float

    @property
    def chip(self) -> Chip:
        """The specification, with the share of the memory that JAX uses."""
        memory = self.memory * 2**30 * memory_fraction()
        return Chip(memory, self.flops * 1e12, self.bandwidth * 1e9, self.links * 1e9)


# Peak, bandwidth and links are from Google's pages (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and
# tpu7x, read in 2026). Published link bandwidths count both directions, `links` one. The page of v4
# has no link bandwidth: the value here is a pod's all-reduce bandwidth, 1.1 PB/s, divided by its
# 4096 chips; the same rule reproduces v5e and v6e exactly. Memory is the amount that the compiler
# of libtpu 0.0.50 reports as available when a program is too large (32, 16, 95, 32 and 192 GB on
# the pages); libtpu 0.0.42 reports up to 0.01 GiB more.
CHIPS = {
    "v4": Chip(memory=30.75 * 2**30, flops=275e12, bandwidth=1200e9, links=269e9),
    "v5e": Chip(memory=15.75 * 2**30, flops=197e12, bandwidth=819e9, links=200e9),
    "v5p": Chip(memory=95.73 * 2**30, flops=459e12, bandwidth=2765e9, links=600e9),
    "v6e": Chip(memory=31.24 * 2**30, flops=918e12, bandwidth=1638e9, links=400e9),
    "tpu7x": Chip(memory=94.74 * 2**30, flops=2307e12 / 2, bandwidth=7380e9 / 2, links=300e9),
}

# Peaks, bandwidths and links are from NVIDIA's data sheets (V100, T4, A100, H100 SXM, H200 SXM, HGX
# B200, L4, L40S) and architecture papers (GA102, Ada, RTX Blackwell; with float32 accumulation).
# Links are NVLink in one direction, or PCIe for cards without it. V100 and T4 compute bfloat16 in
# float32, whose rate stands here. Memory, cores, clocks and caches of A100, H100, H200, B200 and
# V100-16 are those of the target files in XLA's repository. For the other cards they are from the
# papers, and memory is what CUDA reports as the total, rounded down.
GPUS = {  # kind, capability, cores, clock, cache, memory, flops, bandwidth, links
    "v100-16": Gpu("Tesla V100-SXM2-16GB", (7, 0), 80, 1.53, 6, 15.77, 15.7, 900, 150),
    "v100-32": Gpu("Tesla V100-SXM2-32GB", (7, 0), 80, 1.53, 6, 31.7, 15.7, 900, 150),
    "t4": Gpu("Tesla T4", (7, 5), 40, 1.59, 4, 14.5, 8.1, 300, 16),
    "a100-40": Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 108, 1.41, 40, 39.42, 312, 1555, 300),
    "a100-80": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 40, 79.26, 312, 2039, 300),
    "rtx3090": Gpu("NVIDIA GeForce RTX 3090", (8, 6), 82, 1.695, 6, 23.6, 71, 936, 32),
    "l4": Gpu("NVIDIA L4", (8, 9), 58, 2.04, 48, 22.0, 121, 300, 32),
    "l40s": Gpu("NVIDIA L40S", (8, 9), 142, 2.52, 96, 44.3, 362, 864, 32),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", (8, 9), 128, 2.52, 72, 23.6, 165.2, 1008, 32),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 50, 79.11, 989, 3352, 450),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 1.98, 50, 141.0, 989, 4800, 450),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 1.965, 126.5, 178.36, 2250, 7672, 900),
    "rtx5090": Gpu("NVIDIA GeForce RTX 5090", (12, 0), 170, 2.407, 96, 31.3, 209.5, 1792, 64),
}
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}  # `device_kind` as JAX reports it
_GPU_KINDS = {gpu.kind: gpu for gpu in GPUS.values()}
BFLOAT16 = (8, 0)  # the first compute capability that computes it


def find_chip(kind: str) -> Chip | None:
    """Return the specification of a device by its `device_kind`, None where unknown."""
    if kind in _GPU_KINDS:
        return _GPU_KINDS[kind].chip
    return CHIPS[KINDS[kind]] if kind in KINDS else None


def memory_fraction() -> float:
    """Return the share of a GPU's memory that JAX uses: its own setting, by default 75 %."""
    names = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    return float(next((os.environ[name] for name in names if os.environ.get(name)), 0.75))


def describe_limits(kind: str, dtype: str) -> list[str]:
    """Return what to know about the figures of a GPU, by its `device_kind`; empty for others.

    Args:
      kind: of the device.
      dtype: of the encoder's computation.
    """
    if kind not in _GPU_KINDS:
        return []
    gpu = _GPU_KINDS[kind]
    lines = [
        f"JAX uses {memory_fraction():.0%} of the {gpu.memory:.1f} GiB; XLA_CLIENT_MEM_FRACTION "
        "changes it. Workspaces of cuDNN, which it selects on the GPU, are not included."
    ]
    if gpu.capability < BFLOAT16 and dtype == "bfloat16":
        lines.append(
            f"{kind} has no bfloat16: XLA computes it in float32, so that "
            "--config.encoder.dtype=float32 costs the same."
        )
    return lines
