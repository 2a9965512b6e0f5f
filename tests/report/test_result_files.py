import copy
import json

import numpy as np
import pytest

from tests.report.conftest import dump, made, predictions, result
from vrl_jax.report import result_files


def test_file_with_predictions_is_read(tmp_path, rng):
    path = tmp_path / "linear-static.json"
    dump(path, result("order/reversed", "static", 0.5) | {"per_class": {"a": 0.25}})
    arrays = predictions(rng)
    np.savez(path.with_suffix(".npz"), **arrays)
    loaded = result_files.load_result(path, "mine")
    assert (loaded.run, loaded.prefix, loaded.label) == ("mine", "order", "static")
    assert (loaded.values, loaded.chance) == ({"": 0.5}, {"": 0.125})
    assert loaded.per_class == {"a": 0.25} and not loaded.untrained
    np.testing.assert_array_equal(loaded.predictions.predictions, arrays["predictions"])
    path.with_suffix(".npz").unlink()
    assert result_files.load_result(path, "mine").predictions is None


@pytest.mark.parametrize("key", ["name", "protocol", "data", "value"])
def test_what_the_table_needs_is_asked_for(tmp_path, key):
    content = result("linear", "static", 0.5)
    del content[key]
    dump(tmp_path / "mine.json", content)
    with pytest.raises(ValueError, match=rf"mine\.json must have .*{key}"):
        result_files.load_result(tmp_path / "mine.json", "")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"value": "0.5"}, "value must hold numbers"),
        ({"value": True}, "value must hold numbers"),
        ({"value": None}, "value must hold numbers"),
        ({"top5": "high"}, "top5 must hold numbers"),
        ({"std": [1]}, "std must hold numbers"),
        ({"splits": {"1": "?"}}, "splits must hold numbers"),
        ({"per_class": {"a": None}}, "per_class must hold numbers"),
        ({"chance": "low"}, "chance must hold numbers"),
        ({"protocol": {}}, "protocol must be an object"),
        ({"protocol": "dualvar"}, "protocol must be an object"),
        ({"data": []}, "data must be an object"),
        ({"model": "R3D"}, "model must be an object"),
        ({"protocol": {"changed": {"epochs": 2}}}, r"protocol\.changed\.epochs must be"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(changed, complaint):
    with pytest.raises(ValueError, match=rf"made\.json: {complaint}"):
        made(result("linear", "static", 0.5) | changed)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"ids": None}, "lacks ids"),
        ({"labels": np.zeros(3, int)}, "one label and one prediction per id"),
        ({"predictions": np.full(200, 3)}, "predictions must be integers from -1 to 2"),
        ({"predictions": np.full(200, -2)}, "predictions must be integers from -1 to 2"),
        ({"labels": np.full(200, -1)}, "labels must be integers from 0 to 2"),
        ({"labels": np.full(200, 0.5)}, "labels must be integers"),
    ],
)
def test_predictions_that_contradict_themselves_are_refused(tmp_path, rng, changed, complaint):
    arrays = predictions(rng) | changed
    np.savez(tmp_path / "p.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=rf"p\.npz.* {complaint}"):
        result_files.load_predictions(tmp_path / "p.npz")


def test_measure_is_protocol_and_data_alone():
    one = result("linear", "static", 0.5)
    same = copy.deepcopy(one) | {"value": 0.1, "commit": "f", "model": {"encoder": "Other"}}
    same["protocol"] = dict(reversed(same["protocol"].items()))
    assert made(one).measure == made(same).measure
    assert json.loads(made(one).measure) == [one["protocol"], one["data"]]
