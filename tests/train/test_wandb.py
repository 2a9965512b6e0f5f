"""Records go to the same Weights & Biases run however often a run is continued."""

import sys
import types

import pytest

from vrl_jax.train.run_log import Log
from vrl_jax.train.wandb import WandbWriter, check_installed


class Run:
    def __init__(self, settings):
        self.settings, self.sent, self.metrics, self.code = settings, [], [], None

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.sent.append(values)

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def runs(monkeypatch):
    runs = []

    def init(**settings):
        runs.append(Run(settings))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return runs


def test_records_follow_the_folder(runs, tmp_path):
    for start in (0, 2):
        with Log(
            tmp_path, start, 4, quiet=True, wandb=WandbWriter("mine", tmp_path, {"a": 1})
        ) as log:
            log.metrics(start + 1, {"loss": 0.5})
            log.probes(start + 2, {"knn/static": 0.25})
    first, second = runs
    assert first.settings == second.settings
    assert first.settings["project"] == "mine" and first.settings["resume"] == "allow"
    assert first.settings["config"] == {"a": 1} and first.settings["dir"] == str(tmp_path)
    assert len(first.settings["id"]) == 8
    assert first.metrics == [("*", "step")] and first.code == 0
    assert first.sent == [{"step": 1, "loss": 0.5}, {"step": 2, "probe/knn/static": 0.25}]
    assert [record["step"] for record in second.sent] == [3, 4]
    (tmp_path / "other").mkdir()
    WandbWriter("mine", tmp_path / "other", {})
    assert runs[2].settings["id"] != first.settings["id"] and runs[2].settings["name"] == "other"


def test_a_run_that_fails_says_so(runs, tmp_path):
    with pytest.raises(FloatingPointError):
        with Log(tmp_path, 0, 4, quiet=True, wandb=WandbWriter("mine", tmp_path, {})):
            raise FloatingPointError("loss")
    assert runs[0].code == 1


def test_without_the_package_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'vrl-jax\[wandb\]'"):
        check_installed()
