"""A run of a method that is written from the protocols alone, with probes and spectrum.

Its state is split over the devices.
"""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from configs import synthetic_bod
from tests.methods.by_hand import ByHand
from tests.profiling.test_step_trace import read_steps
from vrl_jax import config, pretrained
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.video_dataset import MissingPart, VideoList
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.pretraining.pretraining_run import Pretraining
from vrl_jax.train import sharding


def small_experiment():
    described = synthetic_bod.get_config()
    described.framework = None
    described.method = config.describe(ByHand())
    described.encoder = config.describe(Tiny(widths=(4, 8), strides=(4, 2)))
    described.data.pretrain_videos, described.data.train_videos = 24, 32
    described.data.test_videos, described.sampling.frames = 24, 8
    described.train.batch, described.train.steps, described.train.log_every = 8, 4, 1
    described.train.probe_every, described.train.save_every = 2, 2
    described.train.shard_state = True
    described.evaluate.batch, described.evaluate.neighbours = 8, 2
    described.evaluate.ks, described.evaluate.knn = (1,), 5
    described.evaluate.linear.steps = 20
    described.loader.workers = 0
    described.augment.jitter = described.augment.gray = described.augment.blur = 0.0
    return config.build(described)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("by_hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "MIN_SHARDED", 8)
        run = Pretraining(small_experiment(), workdir, quiet=True, profile="2:3")
        assert run()
    return run, workdir


@pytest.mark.slow
def test_it_is_probed_and_its_spectrum_recorded(finished):
    _, workdir = finished
    probes = [json.loads(line) for line in (workdir / "probes.jsonl").read_text().splitlines()]
    assert [record["step"] for record in probes] == [0, 2, 4]
    with np.load(workdir / "spectrum.npz") as spectrum:
        assert spectrum["steps"].tolist() == [0, 2, 4]
        assert spectrum["eigenvalues"].shape == (3, 24, 3)
        assert float(spectrum["radius"]) == 0.25


@pytest.mark.slow
def test_results_and_report_name_it(finished):
    _, workdir = finished
    result = json.loads((workdir / "results" / "linear-static.json").read_text())
    assert (result["model"]["method"], result["model"]["framework"]) == ("ByHand", "none")
    assert "method ByHand · encoder Tiny" in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_the_steps_asked_for_are_traced(finished):
    assert read_steps(finished[1] / "profile") == {"2", "3"}


@pytest.mark.slow
def test_its_encoder_is_restored_from_every_checkpoint(finished):
    run, workdir = finished
    model = pretrained.load(workdir)
    assert model.step == 4 and model.origin["framework"] == "none"
    state = run.checkpoints.restore(run.program.init())
    kernels = jax.tree.leaves(state.params["trunk"])
    assert not all(kernel.sharding.is_fully_replicated for kernel in kernels)
    chex.assert_trees_all_equal(model.variables["params"], state.params["trunk"])
    jax.tree.map(
        np.testing.assert_array_equal, model.variables["batch_stats"], state.state["moments"]
    )
    first = pretrained.load(workdir, step=2)
    assert first.weight_hash() != model.weight_hash()


@dataclasses.dataclass(frozen=True)
class Unlabelled(Synthetic):
    """Rendered videos without labels or a test part."""

    def pretrain(self):
        videos = super().pretrain()
        return VideoList(
            tuple(
                dataclasses.replace(v, labels={})
                for v in map(videos.__getitem__, range(len(videos)))
            ),
            {},
        )

    def test(self):
        raise MissingPart("no test videos: pass --config.data.test_list=")


@pytest.mark.slow
def test_videos_without_labels_or_test_part_are_pretrained_on(tmp_path, capsys):
    experiment = small_experiment()
    data = Unlabelled(pretrain_videos=24)
    run = Pretraining(dataclasses.replace(experiment, data=data), tmp_path, quiet=True)
    assert run()
    assert "no probes of labels: no test videos: pass --config.data.test_list=" in "".join(
        capsys.readouterr()
    )
    probes = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    assert [record["score"] for record in probes] == [0, 2, 4]  # the newest is the best
    assert all(record["collapse/effective_rank"] > 0 for record in probes)
    assert not any(key.startswith(("linear", "knn", "retrieval")) for key in probes[0])
    with np.load(tmp_path / "spectrum.npz") as spectrum:
        assert spectrum["eigenvalues"].shape == (3, 24, 3)
    assert not any((tmp_path / "results").iterdir()) and (tmp_path / "report.html").is_file()


def test_a_framework_is_refused_before_anything_starts(tmp_path):
    experiment = dataclasses.replace(small_experiment(), framework=SimCLR())
    with pytest.raises(ValueError, match="ByHand makes its own comparisons: .* got SimCLR"):
        Pretraining(experiment, tmp_path)


def test_steps_to_profile_are_within_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"profile must be within the \d+ steps .* got '2:999'"):
        Pretraining(small_experiment(), tmp_path, quiet=True, profile="2:999")
