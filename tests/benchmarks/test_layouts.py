"""Steps on a GPU by formulation; nothing is compiled."""

import json
import sys

import pytest

from benchmarks import layouts

REPORT = {
    "memory": {"temporaries": 3 * 2**29},
    "costs": {
        "traffic": 2.04e9,
        "flops": 3.1e12,
        "layouts": {
            "channels_last": {"3x3": 4, "3x1": 2},
            "channels_first": {"3x7x7": 1, "1x3x3": 2, "3x3": 4},
            "transposes": 7,
            "transposed": 8_000_000,
        },
    },
}


def test_a_row_has_every_figure():
    table = layouts.tabulate({"step": {"planar": REPORT}})
    cells = ["6", "7 (6 factorised)", "7, 8 MB", "1.50 GiB", "2.0 GB", "3.10 TFLOP"]
    assert table.endswith(f"| step | planar | {' | '.join(cells)} |")


def test_steps_are_compiled_in_each_formulation_and_stored(monkeypatch, tmp_path, capsys):
    path, compiled = tmp_path / "layouts.json", []

    def compile_layouts(experiment, formulation, topology):
        compiled.append((type(experiment.encoder).__name__, formulation, topology))
        return REPORT

    monkeypatch.setattr(layouts, "compile_layouts", compile_layouts)
    monkeypatch.setattr(layouts.jax.config, "update", lambda *_: None)
    command = ["layouts.py", f"--json={path}", "--topology=l4"]
    monkeypatch.setattr(sys, "argv", command)
    layouts.main()
    assert ("R2plus1D", "planar", "l4") in compiled and ("R3D", "per_tap", "l4") in compiled
    steps = json.loads(path.read_text())["steps"]
    assert [len(each) for each in steps.values()] == [2] * 5
    assert "k400_bod, R(2+1)D-18 | planar | 6 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "SimCLR, R3D-18"])
    compiled.clear()
    layouts.main()
    assert len(compiled) == 2 and json.loads(path.read_text())["steps"] == steps
    monkeypatch.setattr(sys, "argv", ["layouts.py", "k400"])
    with pytest.raises(SystemExit):
        layouts.main()
    assert "steps must be among 'k400_simclr, SlowOnly-R50'" in capsys.readouterr().err
