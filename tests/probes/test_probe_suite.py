import json

import numpy as np
import pytest

from vrl_jax.probes import knn, retrieval
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.probe_suite import ProbeConfig, run_probes, summarize_probes

CLASSES = {"shape": ("disc", "bar"), "who": ("ann", "bob", "cyd", "dan")}
CONFIG = {"ks": (1, 5), "knn": 5, "linear": LinearProbe(steps=50)}
STAMP = {"protocol": {"clips": 1}, "model": {"encoder": "Tiny"}, "data": {}, "commit": "c"}


def bank(rng, count):
    shape, who = rng.integers(0, 2, count), np.arange(count) % 4
    features = rng.normal(size=(count, 6)).astype(np.float32)
    features[:, 0] += 4 * shape
    return FeatureBank(features, {"shape": shape, "who": who}, np.zeros(count, bool))


def test_every_probe_on_every_label_stamped_and_serialisable(rng):
    train, test = bank(rng, 80), bank(rng, 40)
    results = run_probes(train, test, CLASSES, ProbeConfig(**CONFIG), STAMP)
    for result in results:
        predictions = result.pop("predictions", None)
        if result["name"] == "linear":
            right = predictions == test.labels[result["label"]]
            assert right.mean() == pytest.approx(result["value"])
    results = json.loads(json.dumps(results))
    by_name = {(r["name"], r["label"]): r for r in results}
    assert set(by_name) == {(n, c) for n in ("linear", "knn", "retrieval") for c in CLASSES}
    assert all(r["protocol"] == {"clips": 1} and r["commit"] == "c" for r in results)
    data = (train.features, train.labels["shape"], test.features, test.labels["shape"])
    assert by_name["knn", "shape"]["value"] == knn.knn_accuracy(*data, k=5)
    recall = retrieval.recall_at(data[2], data[3], data[0], data[1], ks=(1, 5))
    assert by_name["retrieval", "shape"]["values"] == {str(k): v for k, v in recall.items()}
    assert by_name["linear", "shape"]["value"] > 0.9 > by_name["linear", "who"]["value"]
    most = max(np.mean(test.labels["shape"] == c) for c in (0, 1))
    assert by_name["linear", "shape"]["chance"] == pytest.approx(most)


def test_several_classes_per_video_are_ranked(rng):
    def bank_of(count, unreadable=0):
        labels = rng.random((count, 3)) < [0.5, 0.2, 0.3]
        features = rng.normal(size=(count, 6)).astype(np.float32)
        features[:, :2] += 6 * labels[:, :2]
        lost = np.arange(count) < unreadable
        return FeatureBank(features, {"shape": labels, "who": np.arange(count) % 4}, lost)

    classes = {"shape": ("disc", "bar", "none"), "who": CLASSES["who"]}
    train, test = bank_of(80, 3), bank_of(40)
    results = run_probes(train, test, classes, ProbeConfig(**CONFIG), STAMP)
    (result,) = [r for r in results if r["label"] == "shape"]
    assert json.loads(json.dumps(result)) == result and "predictions" not in result
    assert (result["name"], result["metric"]) == ("linear", "mean average precision")
    assert result["chance"] == pytest.approx(test.labels["shape"].mean())
    assert 0.6 < result["value"] < 0.9  # the last class is not in the features
    assert 0 < result["held_out_precision"] <= 1
    values = summarize_probes(results, test)
    assert values["linear/shape"] == result["value"] and "knn/shape" not in values
    lost = test._replace(unreadable=test.labels["shape"][:, 0])
    (worse,) = [
        r
        for r in run_probes(train, lost, classes, ProbeConfig(**CONFIG), STAMP)
        if r["label"] == "shape"
    ]
    assert worse["value"] < result["value"] - 0.1
    with pytest.raises(ValueError, match="'shape' has several classes per video: .* 'who'"):
        run_probes(test, test, classes, ProbeConfig(group="who", **CONFIG), STAMP)


def test_leaving_groups_out_needs_no_training_set(rng):
    test = bank(rng, 40)
    results = run_probes(test, test, CLASSES, ProbeConfig(group="who", **CONFIG), STAMP)
    (result,) = results
    assert result["label"] == "shape" and set(result["groups"]) == {"0", "1", "2", "3"}
    assert result["value"] == pytest.approx(np.mean(list(result["groups"].values())))
    assert result["value"] > 0.9


def test_summary_names_accuracies_chance_and_collapse(rng):
    train, test = bank(rng, 80), bank(rng, 40)
    values = summarize_probes(run_probes(train, test, CLASSES, ProbeConfig(**CONFIG), STAMP), test)
    assert {"linear/shape", "knn/who", "retrieval/shape", "chance/who"} <= set(values)
    assert {"collapse/feature_std", "collapse/effective_rank"} <= set(values)


def test_unreadable_test_videos_are_wrong_and_training_ones_left_out(rng):
    train, test = bank(rng, 80), bank(rng, 40)
    for spoilt in (train, test):
        spoilt.features[::4] = 1e3
        spoilt.unreadable[::4] = True
    readable = (train.readable(), test.readable())
    whole = run_probes(*readable, CLASSES, ProbeConfig(**CONFIG), STAMP)
    for result, clean in zip(
        run_probes(train, test, CLASSES, ProbeConfig(**CONFIG), STAMP), whole, strict=True
    ):
        if "predictions" in result:
            assert set(np.flatnonzero(result["predictions"] == -1)) == set(range(0, 40, 4))
            assert (result["predictions"][~test.unreadable] == clean["predictions"]).all()
        if "value" in result:
            assert result["value"] == pytest.approx(0.75 * clean["value"])
        else:
            assert result["values"]["1"] == pytest.approx(0.75 * clean["values"]["1"])


def test_a_left_out_group_that_cannot_be_read_counts_as_wrong(rng):
    test = bank(rng, 40)
    (before,) = run_probes(test, test, CLASSES, ProbeConfig(group="who", **CONFIG), STAMP)
    test.unreadable[test.labels["who"] == 2] = True
    (after,) = run_probes(test, test, CLASSES, ProbeConfig(group="who", **CONFIG), STAMP)
    assert after["groups"]["2"] == 0 and after["groups"].keys() == before["groups"].keys()
    assert after["value"] == pytest.approx(np.mean(list(after["groups"].values())))
    assert after["value"] < 0.8
