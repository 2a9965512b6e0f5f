import json

import numpy as np
import pytest

from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.probes import result_files
from vrl_jax.probes.feature_bank import FeatureBank


def result(name, value, unreadable=0, **more):
    return {
        "name": name,
        "label": "class",
        "metric": "top-1 accuracy",
        "value": value,
        "protocol": {"name": "own", "split": "split 1"},
        "model": {"encoder": "Tiny", "init": "run"},
        "data": {"test": f"hash of {value}"},
        "commit": "c",
        "unreadable": {"test": unreadable},
        **more,
    }


def test_every_number_is_averaged_over_splits_and_nothing_else_is_kept():
    by_split = {
        "1": [result("order/shuffled", 0.5, 0, drop=0.4, per_class={"a": 0.2, "b": 0.8}, chosen=1)],
        "3": [result("order/shuffled", 0.9, 7, drop=0.0, per_class={"a": 0.4}, chosen=2)],
    }
    (mean,) = result_files.average_splits(by_split)
    assert mean["value"] == pytest.approx(0.7) and mean["std"] == pytest.approx(0.2)
    assert mean["splits"] == {"1": 0.5, "3": 0.9}
    assert mean["drop"] == pytest.approx(0.2) and mean["per_class"] == {"a": pytest.approx(0.3)}
    assert mean["unreadable"] == {"test of split 1": 0, "test of split 3": 7}
    assert mean["protocol"]["split"] == "mean of 1, 3" and "chosen" not in mean
    assert mean["data"] == {"1": {"test": "hash of 0.5"}, "3": {"test": "hash of 0.9"}}


def test_only_what_all_splits_have_is_averaged_and_by_name():
    one = [result("scuba/scuba", 0.1), result("order/ordered", 0.2)]
    (mean,) = result_files.average_splits({"1": one, "2": [result("order/ordered", 0.4)]})
    assert mean["name"] == "order/ordered" and mean["value"] == pytest.approx(0.3)
    recall = {"values": {"1": 0.2, "5": 0.6}}
    pair = []
    for scale in (1, 0.5):
        one_result = result("retrieval", 0)
        del one_result["value"]
        one_result["protocol"] = {**one_result["protocol"], "centring": "each"}
        pair.append({**one_result, "values": {k: v * scale for k, v in recall["values"].items()}})
    (mean,) = result_files.average_splits({"1": pair[:1], "2": pair[1:]})
    assert mean["values"] == {"1": pytest.approx(0.15), "5": pytest.approx(0.45)}


def test_scores_of_classes_count_the_unreadable_as_wrong(rng):
    labels = np.array([0, 0, 1, 1, 1, 3])
    scores = np.eye(8)[[0, 1, 1, 1, 2, 3]].astype(np.float32)
    bank = FeatureBank(scores, {"class": labels}, np.array([0, 0, 0, 1, 0, 0], bool))
    scored = result_files.top_accuracies("finetune", bank, "class")
    assert scored["predictions"].tolist() == [0, 1, 1, -1, 2, 3]
    assert scored["value"] == 3 / 6 and scored["chance"] == 3 / 6
    assert scored["mean_class_accuracy"] == pytest.approx(np.mean([1 / 2, 1 / 3, 1]))
    assert scored["top5"] == 5 / 6
    scores[4] = [0.1, 0.05, 0.9, 0.8, 0.7, 0.6, 0.0, 0.0]
    worse = result_files.top_accuracies("finetune", bank._replace(features=scores), "class")
    assert worse["top5"] == 4 / 6  # one is sixth, one cannot be read


def test_files_are_named_by_what_they_hold_and_earlier_ones_go(tmp_path):
    videos = VideoList((Video("v", VideoFile("x"), {"class": 1}),), {"class": ("a", "b")})
    first = [result("order/held", 0.5), {**result("linear", 0.5), "predictions": np.array([1])}]
    result_files.write_results(tmp_path, first, videos)
    assert {p.name for p in tmp_path.iterdir()} == {
        "order-held-class.json", "linear-class.json", "linear-class.npz"
    }  # fmt: skip
    with np.load(tmp_path / "linear-class.npz") as arrays:
        assert arrays["ids"].tolist() == ["v"] and arrays["predictions"].tolist() == [1]
        assert arrays["labels"].tolist() == [1] and arrays["classes"].tolist() == ["a", "b"]
    assert json.loads((tmp_path / "linear-class.json").read_text())["position"] == 1
    plain = {**result("linear", 0.5), "model": {"init": "untrained"}}
    result_files.write_results(tmp_path, [plain])
    names = {p.name for p in tmp_path.iterdir()}  # what is of another kind is not touched
    assert names == {"linear-class-untrained.json", "order-held-class.json"}
    with pytest.raises(ValueError, match="two results have the same name"):
        result_files.write_results(tmp_path, [plain, plain])
