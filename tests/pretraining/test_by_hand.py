"""A run of a method that is written from the protocols alone, with probes and spectrum."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from configs import synthetic_bod
from tests.methods.by_hand import ByHand
from vrl_jax import config, pretrained
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.pretraining.pretraining_run import Pretraining


def small_experiment():
    described = synthetic_bod.get_config()
    described.framework = None
    described.method = config.describe(ByHand())
    described.encoder = config.describe(Tiny(widths=(4, 6), strides=(4, 2)))
    described.data.pretrain_videos, described.data.train_videos = 24, 32
    described.data.test_videos, described.sampling.frames = 24, 8
    described.train.batch, described.train.steps, described.train.log_every = 8, 4, 1
    described.train.probe_every, described.train.save_every = 2, 2
    described.evaluate.batch, described.evaluate.neighbours = 8, 2
    described.evaluate.ks, described.evaluate.knn = (1,), 5
    described.evaluate.linear.steps = 20
    described.loader.workers = 0
    described.augment.jitter = described.augment.gray = described.augment.blur = 0.0
    return config.build(described)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("by_hand")
    run = Pretraining(small_experiment(), workdir, quiet=True)
    assert run()
    return run, workdir


def test_it_is_probed_and_its_spectrum_recorded(finished):
    _, workdir = finished
    probes = [json.loads(line) for line in (workdir / "probes.jsonl").read_text().splitlines()]
    assert [record["step"] for record in probes] == [0, 2, 4]
    with np.load(workdir / "spectrum.npz") as spectrum:
        assert spectrum["steps"].tolist() == [0, 2, 4]
        assert spectrum["eigenvalues"].shape == (3, 24, 3)
        assert float(spectrum["radius"]) == 0.25


def test_results_and_report_name_it(finished):
    _, workdir = finished
    result = json.loads((workdir / "results" / "linear-static.json").read_text())
    assert (result["model"]["method"], result["model"]["framework"]) == ("ByHand", "none")
    assert "method ByHand · encoder Tiny" in (workdir / "report.html").read_text()


def test_its_encoder_is_restored_from_every_checkpoint(finished):
    run, workdir = finished
    model = pretrained.load(workdir)
    assert model.step == 4 and model.origin["framework"] == "none"
    state = run.checkpoints.restore(run.program.init())
    chex.assert_trees_all_equal(model.variables["params"], state.params["trunk"])
    jax.tree.map(
        np.testing.assert_array_equal, model.variables["batch_stats"], state.state["moments"]
    )
    first = pretrained.load(workdir, step=2)
    assert first.weight_hash() != model.weight_hash()


def test_a_framework_is_refused_before_anything_starts(tmp_path):
    experiment = dataclasses.replace(small_experiment(), framework=SimCLR())
    with pytest.raises(ValueError, match="ByHand makes its own comparisons: .* got SimCLR"):
        Pretraining(experiment, tmp_path)
