"""Slices, GPUs and simulated devices; those that cannot be had are refused in clear words."""

import re

import pytest

from vrl_jax.profiling import compile_targets
from vrl_jax.profiling.compile_targets import check_slice, compile_devices, gpu_target
from vrl_jax.profiling.device_specs import CHIPS, GPUS


@pytest.mark.parametrize("name", ["v9:2x2", "", "tpu", "h100x8", "H100"])
def test_unknown_devices_are_refused(name):
    message = f"topology must be a TPU slice.*v4, v5e, .* h100:2x8 .*rtx4090.*got {name!r}"
    with pytest.raises(ValueError, match=message):
        compile_devices(name)


OFFERED = ["v5e:1x1", "v6e:16x16", "v4:2x2x4", "v5p:8x8x16", "tpu7x:2x2x1", "tpu7x:4x4x12"]
NOT_OFFERED = [
    "v5e", "v5e:4", "v5e:0x4", "v5e:3x3", "v6e:2x2x2", "v5e:32x32", "v4:4x4", "v4:4x2x2",
    "v5p:2x4x8", "v5p:24x24x24", "tpu7x:0x4x4", "tpu7x:2x2", "tpu7x:5x5x5",
]  # fmt: skip


@pytest.mark.parametrize("name", OFFERED)
def test_slices_that_are_offered(name):
    check_slice(*name.split(":"))


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_slices_that_are_not_offered_do_not_reach_the_compiler(name, monkeypatch):
    monkeypatch.setattr(compile_targets.importlib.util, "find_spec", lambda name: pytest.fail())
    chip = name.split(":")[0]
    with pytest.raises(ValueError, match=f"slices of {chip} have the shapes .*2x2"):
        compile_devices(name)


@pytest.mark.parametrize(
    ("name", "extra"), [("v5e:2x4", "tpu"), ("tpu7x:2x2x1", "tpu"), ("h100:8", "preflight")]
)
def test_without_its_compiler_a_device_is_refused(name, extra, monkeypatch):
    monkeypatch.setattr(compile_targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install 'vrl-jax\[{extra}\]'"):
        compile_devices(name)


@pytest.mark.parametrize("shape", ["0", "x8", "2x", "2x2x8", "eight"])
def test_impossible_numbers_of_gpus_are_refused(shape):
    with pytest.raises(ValueError, match="such as h100:8 or h100:2x8, got"):
        compile_devices(f"h100:{shape}")


def test_every_gpu_is_described():
    for name, gpu in GPUS.items():
        fields = dict(re.findall(r"(\w+): (\S+)", gpu_target(gpu)))
        assert float(fields["clock_rate_ghz"]) == gpu.clock, name
        assert int(fields["device_memory_size"]) == round(gpu.memory * 2**30)
        assert f"{{ major: {gpu.capability[0]} minor: {gpu.capability[1]} }}" in gpu_target(gpu)


def test_gpus_and_their_hosts():
    pytest.importorskip("jax_cuda12_plugin")
    devices = compile_devices("h100:2x8")
    assert len(devices) == 16 and {device.process_index for device in devices} == {0, 1}
    assert {device.device_kind for device in devices} == {GPUS["h100"].kind}
    assert {device.platform for device in devices} == {"gpu"}
    assert len(compile_devices("t4")) == 1 and len(compile_devices("l4:4")) == 4


def test_simulated_devices_must_come_first():
    with pytest.raises(ValueError, match="devices must be at least 1, got 0"):
        compile_targets.simulated_devices(0)
    compile_targets.jax.devices()
    with pytest.raises(ValueError, match="the number of devices cannot be set to 3"):
        compile_targets.simulated_devices(3)


def test_every_generation_has_a_slice():
    assert {name.split(":")[0] for name in OFFERED} == set(CHIPS)
