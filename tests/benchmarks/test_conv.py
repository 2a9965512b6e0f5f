import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import conv
from benchmarks.conv import Layer, list_formulations, list_layers, summarize
from tests.encoders.reference import convolve
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.tiny import Tiny

LAYERS = [  # stems of pixels, and convolutions over time
    Layer((2, 4, 12, 8, 3), (3, 7, 7, 3, 5), (1, 2, 2)),
    Layer((2, 3, 8, 12, 3), (3, 5, 5, 3, 4), (1, 4, 4)),
    Layer((1, 4, 6, 9, 3), (1, 3, 5, 3, 4), (1, 2, 3)),
    Layer((1, 5, 4, 6, 3), (3, 3, 3, 3, 4), (2, 1, 2)),
    Layer((2, 7, 4, 3, 4), (3, 1, 1, 4, 5), (2, 1, 1)),
    Layer((2, 6, 5, 4, 4), (5, 1, 1, 4, 3), (1, 2, 3)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_formulation_equals_loops(rng, layer):
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in layer[:2])
    expected = convolve(x, kernel, layer.strides)
    functions = list_formulations(layer)
    assert (
        ("space to depth" in functions)
        == (layer.kernel[3] == 3)
        == ("3 to 8 channels" in functions)
    )
    compute = lambda x, kernel: {k: f(x, kernel, layer.strides) for k, f in functions.items()}  # noqa: E731
    for name, got in jax.jit(compute)(x, kernel).items():
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_an_encoders_convolutions_are_found_and_counted():
    layers = list_layers(R2plus1D().module(), (2, 16, 112, 112, 3))
    assert sum(layers.values()) == 37  # two in the stem, two in each of 16 pairs, three shortcuts
    assert layers[Layer((2, 16, 112, 112, 3), (1, 7, 7, 3, 45), (1, 2, 2))] == 1
    assert layers[Layer((2, 16, 56, 56, 64), (1, 3, 3, 64, 144), (1, 1, 1))] == 4
    weights = sum(np.prod(layer.kernel) * uses for layer, uses in layers.items())
    assert 31.2e6 < weights < 31.4e6


def test_the_verdict_weighs_by_uses():
    timings = [
        {"uses": 1, "seconds": {"native": [5.0, 6.0, 7.0], "planar": [5.0], "per_tap": [1.0] * 3}},
        {"uses": 4, "seconds": {"native": [1.0], "planar": [3.0], "per_tap": [2.0], "flat": [0.5]}},
    ]
    summary = summarize(timings, "per_tap")
    totals = {"native": 10.0, "planar": 17.0, "per_tap": 9.0, "fastest of each": 3.0}
    assert summary["seconds"] == totals
    assert summary["auto"] == "per_tap" and summary["auto_is_fastest"]
    assert not summarize(timings, "native")["auto_is_fastest"]


def test_a_run_prints_its_table_and_keeps_its_numbers(monkeypatch, tmp_path, capsys):
    path = tmp_path / "conv.json"
    monkeypatch.setitem(conv.ENCODERS, "tiny", lambda: Tiny(widths=(4, 6), strides=(4, 2)))
    command = "conv.py --encoder=tiny --batch=1 --frames=2 --size=8 --rounds=1 --times=1"
    monkeypatch.setattr(sys, "argv", [*command.split(), f"--json={path}"])
    conv.main()
    numbers = json.loads(path.read_text())
    assert len(numbers["layers"]) == 3
    assert all(s > 0 for one in numbers["layers"] for x in one["seconds"].values() for s in x)
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 2 + 3 and 'conv="auto" selects per_tap here' in printed
