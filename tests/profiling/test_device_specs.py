"""Devices by the name that JAX reports, and what their memory means."""

import pytest

from vrl_jax.profiling import device_specs
from vrl_jax.profiling.device_specs import CHIPS, GPUS, KINDS, describe_limits, find_chip


def test_figures_of_chips():
    assert find_chip("TPU v5 lite") is CHIPS["v5e"]
    assert find_chip("TPU v5") is CHIPS["v5p"] and find_chip("cpu") is None
    assert set(KINDS.values()) == set(CHIPS)
    with pytest.raises(ValueError, match="links must be above 0, got 0"):
        device_specs.Chip(memory=1.0, flops=1.0, bandwidth=1.0, links=0)


def test_gpus_have_the_share_of_memory_that_jax_uses(monkeypatch):
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    assert len({gpu.kind for gpu in GPUS.values()}) == len(GPUS)
    chip = find_chip("NVIDIA H100 80GB HBM3")
    assert chip.memory == pytest.approx(0.75 * 79.11 * 2**30)
    assert (chip.flops, chip.bandwidth, chip.links) == (989e12, 3352e9, 450e9)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert find_chip("NVIDIA H100 80GB HBM3").memory == pytest.approx(0.5 * 79.11 * 2**30)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.9")
    (line,) = describe_limits("NVIDIA H100 80GB HBM3", "bfloat16")
    assert line.startswith("JAX uses 90% of the 79.1 GiB; XLA_CLIENT_MEM_FRACTION changes it.")


def test_gpus_without_bfloat16_are_named():
    lines = [describe_limits(gpu.kind, "bfloat16") for gpu in GPUS.values()]
    without = [name for name, each in zip(GPUS, lines, strict=True) if len(each) > 1]
    assert without == ["v100-16", "v100-32", "t4"]
    assert "Tesla T4 has no bfloat16" in describe_limits("Tesla T4", "bfloat16")[1]
    assert len(describe_limits("Tesla T4", "float32")) == 1
    assert describe_limits("TPU v4", "bfloat16") == []
