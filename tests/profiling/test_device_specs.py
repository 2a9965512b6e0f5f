"""Chips by name; slices and simulated devices that cannot be had are refused in clear words."""

import pytest

from vrl_jax.profiling import device_specs


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:", "v5e:4", "v5e:0x4", "v5e:4x4x4x4"])
def test_unknown_slices_are_refused(name):
    with pytest.raises(ValueError, match=f"one of v4, v5e, v5p, v6e and a shape.*{name!r}"):
        device_specs.tpu_slice(name)


def test_without_its_compiler_a_slice_is_refused(monkeypatch):
    monkeypatch.setattr(device_specs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vrl-jax\[tpu\]'"):
        device_specs.tpu_slice("v5e:2x4")


def test_simulated_devices_must_come_first():
    with pytest.raises(ValueError, match="devices must be at least 1, got 0"):
        device_specs.simulated_devices(0)
    device_specs.jax.devices()
    with pytest.raises(ValueError, match="the number of devices cannot be set to 3"):
        device_specs.simulated_devices(3)


def test_figures_of_chips():
    assert device_specs.find_chip("TPU v5 lite") is device_specs.CHIPS["v5e"]
    assert (
        device_specs.find_chip("TPU v5") is device_specs.CHIPS["v5p"]
        and device_specs.find_chip("cpu") is None
    )
    assert set(device_specs.KINDS.values()) == set(device_specs.CHIPS)
    with pytest.raises(ValueError, match="links must be above 0, got 0"):
        device_specs.Chip(memory=1.0, flops=1.0, bandwidth=1.0, links=0)
