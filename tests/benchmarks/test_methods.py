import dataclasses
import json
import sys

import numpy as np
import pytest

from benchmarks import methods
from benchmarks.jax_step import make_device_program
from benchmarks.methods import BOTH, METHODS, OUTER, count_encoded, method_experiment
from benchmarks.step import Settings
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny

TINY = Settings(encoder="tiny", batch=4, frames=8, size=16, steps=1)
COUNTS = {"BOD-VCL, both levels": 4, "HDC": 3, "SDC": 6, "DualVar": 4}


def quick(settings, method):
    """Return the experiment of a method, quick to trace and to compile."""
    run = method_experiment(settings, method)
    augment = Augment(size=settings.size, jitter=0.0, gray=0.0, blur=0.0)
    return dataclasses.replace(run, augment=augment, encoder=Tiny(widths=(4, 4, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_encoded_clips_are_counted(name):
    run = quick(TINY, METHODS[name])
    expected = 3 if "reversed" in name else COUNTS.get(name, 2)
    assert count_encoded(run, make_device_program(run)) == expected * TINY.batch


@pytest.mark.slow
def test_a_run_compares_at_as_many_encoded_clips(monkeypatch, tmp_path, capsys):
    path, calls = tmp_path / "methods.json", []

    def record(settings, method):
        calls.append((settings.batch, method))
        return quick(settings, method)

    monkeypatch.setattr(methods, "method_experiment", record)
    monkeypatch.setattr(methods, "METHODS", {"HDC": METHODS["HDC"]})
    command = "methods.py --encoder=tiny --batch=2 --frames=2 --size=16 --rounds=2 --steps=1"
    monkeypatch.setattr(sys, "argv", [*command.split(), f"--json={path}"])
    methods.main()
    assert calls == [(2, METHODS["HDC"]), (3, None)]
    hdc = json.loads(path.read_text())["methods"]["HDC"]
    assert hdc["encoded"] == hdc["drawn"] == 6
    np.testing.assert_allclose(hdc["ratio"], np.divide(hdc["seconds"], hdc["plain_seconds"]))
    assert capsys.readouterr().out.count("\n| ") == 2 + 1


def test_the_lower_level_is_told_beside_the_table():
    plain = {"encoded": 8, "drawn": 8, "plain_seconds": [1.0, 1.0], "ratio": [1.0, 1.0]}
    results = {OUTER: {**plain, "seconds": [1.0, 2.0]}, BOTH: {**plain, "seconds": [2.5, 3.0]}}
    report = methods.tabulate(TINY, results)
    assert "| BOD-VCL, both levels | 2 | 2 | 2750.0 (2500.0 - 3000.0) | 1000.0" in report
    assert "lower level adds 1.00 (0.50 - 1.50) of its upper level's time." in report


@pytest.mark.slow
def test_operations_are_counted_beside_as_many_encoded_clips(monkeypatch):
    monkeypatch.setattr(methods, "method_experiment", quick)
    results = methods.compare_flop(TINY, {OUTER: METHODS[OUTER], BOTH: METHODS[BOTH]})
    upper, both = results[OUTER], results[BOTH]
    assert both["plain_flop"] == pytest.approx(2 * upper["plain_flop"], rel=0.15)
    assert upper["ratio"] == upper["flop"] / upper["plain_flop"] and upper["flop"] < both["flop"]
    larger = methods.compare_flop(dataclasses.replace(TINY, size=32), {OUTER: METHODS[OUTER]})[
        OUTER
    ]
    outer, of_larger = (each["flop"] - each["plain_flop"] for each in (upper, larger))
    assert outer == pytest.approx(of_larger, rel=1e-3) and outer > 0  # it never sees the views
    assert methods.tabulate_flop(TINY, results).count("\n| ") == 2 + 2
