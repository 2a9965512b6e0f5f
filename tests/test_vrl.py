"""The command `vrl` finds every program, and paths with `~` lead home."""

import importlib.util
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vrl_jax
from vrl_jax import __main__ as vrl
from vrl_jax import embed, pretrained
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.report.__main__ import main as report
from vrl_jax.train.workdir import open_workdir

ROOT = Path(__file__).parents[1]


def test_help_fits_a_screen(monkeypatch, capsys):
    for argv in ([], ["--help"], ["help"]):
        monkeypatch.setattr(sys, "argv", ["vrl", *argv])
        vrl.main()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 24 and max(map(len, lines)) <= 80
        assert all(any(line.split()[:1] == [verb] for line in lines) for verb in vrl.VERBS)


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vrl", "--version"])
    vrl.main()
    assert capsys.readouterr().out == f"vrl_jax {vrl_jax.__version__}\n"
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert about["version"] == vrl_jax.__version__
    assert f"version: {about['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert about["scripts"] == {"vrl": "vrl_jax.__main__:main"}


@pytest.mark.parametrize("verb", vrl.VERBS)
def test_a_verb_runs_its_program(monkeypatch, verb):
    calls = []

    def run_module(module, run_name, alter_sys):
        calls.append((module, list(sys.argv)))
        assert run_name == "__main__" and alter_sys

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setattr(sys, "argv", ["vrl", verb, "x", "--y"])
    vrl.main()
    ((module, argv),) = calls
    assert importlib.util.find_spec(module) and argv[-2:] == ["x", "--y"]


def test_an_unknown_verb_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vrl", "trian"])
    with pytest.raises(SystemExit, match="error: no verb 'trian': it must be one of train, eval"):
        vrl.main()


def test_training_refuses_an_evaluation():
    line = ["evaluate", "--config=configs/synthetic_bod.py"]
    done = subprocess.run(
        [sys.executable, "-m", "vrl_jax", *line], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: configs/synthetic_bod.py is a config for: vrl train" in done.stderr


def test_paths_lead_home(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "x"
    assert remote_paths.to_path("~/x") == home and remote_paths.local_path("~/x") == home
    assert open_workdir("~/x").path == home
    with pytest.raises(ValueError, match=f"^{home} is not a run"):
        pretrained.load("~/x")
    home.mkdir()
    assert dataset_lookup.build_dataset("~/x", []).root == "~/x"
    with pytest.raises(ValueError, match=f"no video in {home}"):
        embed.find_videos("~/x", [], "test")
    with pytest.raises(SystemExit):
        report(["~/x"])
    assert f"{home}" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_pins_are_the_same_for_uv():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    uv = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    assert uv["constraint-dependencies"] == [pin for pin in pins if pin and pin[0] != "#"]
