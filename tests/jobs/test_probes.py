"""What the probes of a run ask for is known to be there before it starts."""

import dataclasses

import pytest

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.evaluate.judge import Evaluate
from vrl_jax.jobs.probes import Probes, check_neighbours
from vrl_jax.train.mesh import make_mesh


def test_more_neighbours_than_training_videos_are_refused():
    check_neighbours(Evaluate(), 50)
    with pytest.raises(ValueError, match=r"50 neighbours among 49 .* --config.evaluate.ks$"):
        check_neighbours(Evaluate(), 49)
    with pytest.raises(ValueError, match=r"20 neighbours among 19 .* --config.evaluate.knn$"):
        check_neighbours(Evaluate(ks=(1,)), 19)
    with pytest.raises(ValueError, match="50 neighbours among 30 "):
        check_neighbours(Evaluate(probe_videos=30), 1000)
    check_neighbours(Evaluate(probe_videos=0), 1000)
    check_neighbours(Evaluate(group="person"), 3)


def test_a_run_with_too_few_is_refused_before_it_starts(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    data = dataclasses.replace(experiment.data, train_videos=30)
    horizon = experiment.train.horizon(64)
    method = experiment.method.build(experiment.encoder, experiment.framework, horizon)
    with pytest.raises(ValueError, match="evaluate.ks asks for 50 neighbours among 30"):
        Probes(dataclasses.replace(experiment, data=data), method, make_mesh(), tmp_path)
