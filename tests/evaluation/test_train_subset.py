"""Random subsets of the training videos."""

import collections
import json

import jax
import numpy as np
import pytest

from tests.evaluation.test_evaluation_run import evaluation
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.evaluation.eval_protocol import RunInput
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.evaluation.protocols.probes import Probes
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.train import sharding

COUNTS = (10, 4, 0, 26)


@pytest.fixture(scope="module")
def source():
    labels = np.random.default_rng(0).permutation(np.repeat(range(4), COUNTS))
    videos = (Video(str(n), VideoFile(f"{n}.mp4"), {"class": int(c)}) for n, c in enumerate(labels))
    return VideoList(tuple(videos), {"class": tuple("abcd")}, mirror_safe=False)


def count_classes(source):
    return collections.Counter(video.labels["class"] for video in source.videos)


def ids(source):
    return [video.id for video in source.videos]


def test_a_subset_has_so_many_of_each_class(source):
    for size, counts in (
        ({"per_class": 3}, {0: 3, 1: 3, 3: 3}),
        ({"percent": 50.0}, {0: 5, 1: 2, 3: 13}),
        ({"percent": 1.0}, {0: 1, 1: 1, 3: 1}),
    ):
        drawn = TrainSubset(**size).draw(source, "class", 0)
        assert count_classes(drawn) == counts and drawn.classes == source.classes
        assert not drawn.mirror_safe and ids(drawn) == sorted(ids(drawn), key=int)
    assert len(TrainSubset(videos=17).draw(source, "none", 0)) == 17
    assert TrainSubset().draw(source, "class", 0) is source


def test_draws_are_functions_of_seed_and_number_and_grow(source):
    def draw(number=0, **size):
        return set(ids(TrainSubset(**size).draw(source, "class", number)))

    assert draw(per_class=2) == draw(per_class=2) < draw(per_class=4)
    assert draw(percent=20.0) < draw(percent=60.0) and draw(videos=9) < draw(videos=20)
    for size in ({"per_class": 2}, {"percent": 20.0}, {"videos": 9}):
        assert len({frozenset(draw(number, **size)) for number in range(5)}) > 1
        assert any(draw(n, **size) != draw(n, **size, seed=1) for n in range(3))
    often = collections.Counter(v for n in range(400) for v in draw(n, per_class=2))
    of_first = [often[video.id] for video in source.videos if video.labels["class"] == 0]
    assert len(of_first) == 10 and min(of_first) > 45 and max(of_first) < 120  # 80 expected


def test_what_cannot_be_drawn_is_refused(source):
    with pytest.raises(ValueError, match="per_class requests 5 videos, but class 'b' has 4"):
        TrainSubset(per_class=5).draw(source, "class", 0)
    with pytest.raises(ValueError, match="videos requests 41 .* the training videos has 40"):
        TrainSubset(videos=41).draw(source, "class", 0)
    with pytest.raises(ValueError, match="label must be one of 'class', got 'verb'"):
        TrainSubset(per_class=1).draw(source, "verb", 0)
    with pytest.raises(ValueError, match="a subset has one size, got per_class and videos"):
        TrainSubset(per_class=1, videos=2)
    with pytest.raises(ValueError, match="draws=2 needs per_class, percent or videos"):
        TrainSubset(draws=2)
    with pytest.raises(ValueError, match="percent must be at most 100, got 101"):
        TrainSubset(percent=101.0)


@pytest.mark.parametrize("devices", [1, 8])
def test_results_are_means_over_draws_and_say_so(tmp_path, monkeypatch, devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    monkeypatch.setattr(sharding, "make_mesh", lambda: mesh)
    data = Synthetic(train_videos=60, test_videos=12, frames=12)
    subset = TrainSubset(per_class=2, draws=2, seed=5)
    protocol = Probes(
        ks=(1,), knn=2, linear=LinearProbe(steps=5), test=RunInput(1, 4, 16), subset=subset
    )
    run = EvaluationRun(evaluation(protocol, data=data, splits=()), tmp_path, quiet=True)
    assert "split draw 1: 16 training and 12 test videos" in run.plan()
    assert run()
    mean = json.loads((tmp_path / "results/linear-static-untrained.json").read_text())
    folders = [tmp_path / f"untrained-draw{draw}" for draw in (0, 1)]
    parts = [
        json.loads((folder / "results/linear-static-untrained.json").read_text())
        for folder in folders
    ]
    assert mean["value"] == pytest.approx(np.mean([part["value"] for part in parts]))
    assert mean["splits"] == {f"draw {n}": part["value"] for n, part in enumerate(parts)}
    size = {"per_class": 2, "percent": 0, "videos": 16, "draws": 2, "seed": 5}
    assert mean["protocol"]["subset"] == size
    assert [part["protocol"]["subset"] for part in parts] == [size | {"draw": n} for n in (0, 1)]
    assert parts[0]["data"]["train"] != parts[1]["data"]["train"]
    assert parts[0]["data"]["test"] == parts[1]["data"]["test"]


def test_groups_are_left_out_of_all_videos(tmp_path):
    protocol = Probes(group="static", test=RunInput(1, 4, 16), subset=TrainSubset(per_class=2))
    with pytest.raises(ValueError, match="protocol.subset needs training videos, but protocol.gr"):
        EvaluationRun(evaluation(protocol, data=Synthetic(), splits=()), tmp_path)
