import copy

import pytest

from tests.report.conftest import result
from vrl_jax.report import table


def test_one_protocol_makes_one_table():
    results = [
        result(name, label, value) | {"run": run}
        for run in ("a", "b")
        for label in ("static", "dynamic")
        for name, value in (("linear", 0.9), ("knn", 0.7))
    ]
    (built,) = table.build(results)
    assert [column.title for column in built.columns] == ["linear", "knn"]
    assert [(row.run, row.label) for row in built.rows] == [
        (run, label) for run in ("a", "b") for label in ("static", "dynamic")
    ]
    for row in built.rows:
        assert [cell.value for cell in row.cells.values()] == [0.9, 0.7]
    assert built.differs == {}


@pytest.mark.parametrize(
    "path", [("protocol", "frames"), ("protocol", "views", "clips"), ("data", "fingerprint")]
)
def test_protocols_are_never_mixed(path):
    one, other = result("linear", "static", 0.9), result("linear", "static", 0.8)
    other = copy.deepcopy(other)
    tree = other
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = 999
    first, second = table.build([one | {"run": "a"}, other | {"run": "b"}])
    assert [cell.value for row in first.rows for cell in row.cells.values()] == [0.9]
    assert [cell.value for row in second.rows for cell in row.cells.values()] == [0.8]
    assert list(second.differs.values()) == ["999"]


def test_order_of_protocol_keys_does_not_matter():
    one = result("linear", "static", 0.9)
    other = result("knn", "static", 0.8)
    other["protocol"] = dict(reversed(other["protocol"].items()))
    assert len(table.build([one, other])) == 1


def test_metrics_of_one_name_are_separate_columns():
    one = result("linear", "static", 0.9)
    other = one | {"metric": "cross-entropy", "value": 1.234567}
    (built,) = table.build([one, other])
    assert [column.metric for column in built.columns] == ["top-1 accuracy", "cross-entropy"]
    assert [cell.text for cell in built.rows[0].cells.values()] == ["90.0 %", "1.235"]


def test_repeated_result_gets_its_own_row():
    (built,) = table.build([result("linear", "static", value) for value in (0.9, 0.8)])
    values = [[cell.value for cell in row.cells.values()] for row in built.rows]
    assert values == [[0.9], [0.8]]


def test_other_weights_get_their_own_row():
    one, other = result("linear", "static", 0.9), result("knn", "static", 0.8)
    other["model"] = other["model"] | {"weights": "ffff"}
    (built,) = table.build([one, other])
    assert [row.model["weights"][:4] for row in built.rows] == ["0f3a", "ffff"]


def test_retrieval_has_a_column_per_rank():
    recall = {"name": "retrieval", "label": "static", "values": {"1": 0.5, "5": 0.75}}
    (built,) = table.build([recall | {"protocol": {"frames": 8}}])
    assert [column.title for column in built.columns] == ["retrieval @1", "retrieval @5"]
    assert [cell.text for cell in built.rows[0].cells.values()] == ["50.0 %", "75.0 %"]


def test_flatten():
    tree = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "x", "f": {}, "g": None}
    assert table.flatten(tree) == {"a.b": "1", "a.c.d": "[1, 2]", "e": "x", "f": "{}", "g": "null"}
