import copy

import pytest

from tests.report.conftest import made, result
from vrl_jax.report import result_table

PROTOCOL = {
    "name": "dualvar",
    "split": "1",
    "views": {"clips": 10, "crops": 3},
    "frames": 16,
    "flip": False,
    "mean": [0.45, 0.45],
    "data": "whole",
}
DATA = {"set": "UCF101", "test": "9bc1" * 16, "train": "77aa" * 16}


def values(part):
    return [[cell.value for cell in row.cells.values()] for row in part.rows]


def test_one_protocol_makes_one_table():
    results = [
        made(result(name, label, value), run)
        for run in ("a", "b")
        for label in ("static", "dynamic")
        for name, value in (("linear", 0.9), ("knn", 0.7))
    ]
    (built,) = result_table.build_tables(results)
    assert [column.title for column in built.columns] == ["linear", "knn"]
    assert [(row.run, row.label) for row in built.rows] == [
        (run, label) for run in ("a", "b") for label in ("static", "dynamic")
    ]
    assert values(built) == [[0.9, 0.7]] * 4
    assert built.differs == {} and built.heading == ""


def changes():
    """Every way to change, drop or add one setting of a protocol or of the data."""
    for tree, path in (
        *((PROTOCOL, (key,)) for key in PROTOCOL),
        (PROTOCOL, ("views", "clips")),
        (PROTOCOL, ("views", "crops")),
        *((DATA, (key,)) for key in DATA),
    ):
        where = "protocol" if tree is PROTOCOL else "data"
        yield (where, *path), "change"
        yield (where, *path), "drop"
    yield ("protocol", "new"), "change"
    yield ("protocol", "views", "new"), "change"
    yield ("protocol", "changed"), "changed"
    yield ("protocol", "frames"), "as text"
    yield ("data", "new"), "change"


@pytest.mark.parametrize(("path", "how"), list(changes()))
def test_protocols_are_never_mixed(path, how):
    one = result("linear", "static", 0.9) | {"protocol": PROTOCOL, "data": DATA}
    other = copy.deepcopy(one) | {"value": 0.8}
    *parents, key = path
    tree = other
    for parent in parents:
        tree = tree[parent]
    if how == "drop":
        del tree[key]
    else:
        tree[key] = {"change": "9", "changed": {"epochs": [2, 150]}, "as text": "16"}[how]
    first, second = result_table.build_tables([made(one, "a"), made(other, "b")])
    assert (values(first), values(second)) == ([[0.9]], [[0.8]])
    if how != "as text":
        assert first.heading != second.heading


def test_headings_tell_names_and_differences():
    protocols = [
        {"name": "lss", "clips": 10},
        {"name": "dualvar", "clips": 10, "crops": 1},
        {"name": "dualvar", "clips": 5, "changed": {"epochs": [2, 150], "steps": [[1], [60, 120]]}},
    ]
    contents = [result("linear", "static", 0.5) | {"protocol": p} for p in protocols]
    lss, whole, changed = result_table.build_tables([made(content) for content in contents])
    assert lss.heading == "lss, clips 10, crops not set"
    assert whole.heading == "dualvar, clips 10, crops 1"
    assert changed.heading == "dualvar (changed), clips 5, crops not set"
    assert changed.changed == [
        "epochs 2 (the protocol has 150)",
        "steps [1] (the protocol has [60, 120])",
    ]
    assert whole.changed == []


def test_tables_of_one_name_tell_differences_without_a_column_in_common():
    contents = [
        result(name, "static", 0.5) | {"protocol": {"name": "scuba", "frame": frame}}
        for name, frame in (("moving", "all"), ("still", "middle"))
    ]
    headings = [
        part.heading for part in result_table.build_tables([made(content) for content in contents])
    ]
    assert headings == ["scuba, frame all", "scuba, frame middle"]


def test_untrained_rows_stand_below_trained_ones():
    untrained = result("linear", "static", 0.3)
    untrained["model"] = untrained["model"] | {"init": "untrained"}
    trained = result("linear", "static", 0.9)
    (built,) = result_table.build_tables(
        [made(untrained, "a"), made(trained, "a"), made(untrained, "b"), made(trained, "b")]
    )
    assert [(row.run, row.untrained) for row in built.rows] == [
        ("a", False), ("b", False), ("a", True), ("b", True),
    ]  # fmt: skip
    assert values(built) == [[0.9], [0.9], [0.3], [0.3]]


def test_other_accuracies_get_columns_of_their_own():
    content = result("linear", "static", 0.5) | {"top5": 0.75, "mean_class_accuracy": 0.25}
    (built,) = result_table.build_tables([made(content)])
    assert [column.metric for column in built.columns] == [
        "top-1 accuracy", "top-5 accuracy", "mean class accuracy",
    ]  # fmt: skip
    assert [cell.text for cell in built.rows[0].cells.values()] == ["50.0 %", "75.0 %", "25.0 %"]
    assert [column.metric for column in result_table.leading_columns(built.columns)] == [
        "top-1 accuracy"
    ]


@pytest.mark.parametrize("part", ["splits", "groups"])
def test_means_show_their_spread(part):
    parts = {"1": 0.81, "2": 0.83, "3": 0.76}
    content = result("finetune", "class", 0.8) | {part: parts}
    cells = [made(content | std) for std in ({}, {"std": 0.0123})]
    spread = (sum((v - 0.8) ** 2 for v in parts.values()) / 3) ** 0.5
    texts = [result_table.build_tables([cell])[0].rows[0].cells for cell in cells]
    computed, stored = (next(iter(cell.values())) for cell in texts)
    assert computed.std == pytest.approx(spread)
    assert computed.text == f"80.0 ± {100 * spread:.1f} %" and stored.text == "80.0 ± 1.2 %"
    assert computed.note == f"3 {part}: 76.0 % to 83.0 %"


def test_chance_is_told_once_where_columns_agree():
    contents = [result(name, "static", 0.5) for name in ("linear", "knn")]
    (built,) = result_table.build_tables([made(content) for content in contents])
    assert built.chances == ["top-1 accuracy"] and built.rows[0].chance == "12.5 %"
    (built,) = result_table.build_tables([made(contents[0]), made(contents[1] | {"chance": 0.25})])
    assert built.rows[0].chance == "linear 12.5 %, knn 25.0 %"
    (built,) = result_table.build_tables([made(contents[0] | {"chance": None})])
    assert not built.chances


def test_underscores_of_stamps_are_printed_as_blanks():
    content = result("linear", "static", 0.9) | {"data": {"left_out": 3}}
    content["protocol"] = {"input_mean": [0.4], "linear": {"held_out": 0.2}}
    (built,) = result_table.build_tables([made(content)])
    assert built.protocol == {
        "input mean": "[0.4]",
        "linear.held_out": "0.2",
        "data.left out": "3",
    }


def test_order_of_protocol_keys_does_not_matter():
    one = result("linear", "static", 0.9)
    other = result("knn", "static", 0.8)
    other["protocol"] = dict(reversed(other["protocol"].items()))
    assert len(result_table.build_tables([made(one), made(other)])) == 1


def test_metrics_of_one_name_are_separate_columns():
    one = result("linear", "static", 0.9)
    other = one | {"metric": "cross-entropy", "value": 1.234567}
    (built,) = result_table.build_tables([made(one), made(other)])
    assert [column.metric for column in built.columns] == ["top-1 accuracy", "cross-entropy"]
    assert [cell.text for cell in built.rows[0].cells.values()] == ["90.0 %", "1.235"]


def test_repeated_result_gets_its_own_row():
    (built,) = result_table.build_tables(
        [made(result("linear", "static", value)) for value in (0.9, 0.8)]
    )
    assert values(built) == [[0.9], [0.8]]


def test_other_weights_get_their_own_row_and_are_what_differs():
    one, other = result("linear", "static", 0.9), result("knn", "static", 0.8)
    other["model"] = other["model"] | {"weights": "ffff"}
    (built,) = result_table.build_tables([made(one), made(other)])
    assert [row.model["weights"][:4] for row in built.rows] == ["0f3a", "ffff"]
    assert built.details == ["weights"]
    assert built.shared == {"encoder": "Tiny (12.3 K parameters)", "commit": one["commit"]}


def test_retrieval_has_a_column_per_rank():
    recall = result("retrieval", "static", 0) | {"values": {"1": 0.5, "5": 0.75}}
    del recall["value"], recall["metric"]
    (built,) = result_table.build_tables([made(recall)])
    assert [column.title for column in built.columns] == ["retrieval @1", "retrieval @5"]
    assert [cell.text for cell in built.rows[0].cells.values()] == ["50.0 %", "75.0 %"]
    assert result_table.leading_columns(built.columns) == built.columns[:1]


@pytest.mark.parametrize(
    ("count", "text"), [(31300125, "31.3 M"), (999, "999"), (42416, "42.4 K"), (0, "0")]
)
def test_encoder_stands_with_its_size(count, text):
    assert (
        result_table.encoder_name({"encoder": "R3D", "parameters": count})
        == f"R3D ({text} parameters)"
    )
    assert result_table.encoder_name({"encoder": "R3D"}) == "R3D"


def test_only_hashes_are_cut():
    assert result_table.shorten_hash("9bc1" * 16) == "9bc19bc19b…"
    assert result_table.shorten_hash("9bc1" * 10 + " with changes") == "9bc19bc19b… with changes"
    assert result_table.shorten_hash("mean over time and space, mean over clips") == (
        "mean over time and space, mean over clips"
    )


def test_flatten():
    tree = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "x", "f": {}, "g": None}
    assert result_table.flatten_dict(tree) == {
        "a.b": "1",
        "a.c.d": "[1, 2]",
        "e": "x",
        "f": "{}",
        "g": "null",
    }
