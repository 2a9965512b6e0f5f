import json
import re

from tests.report.conftest import dump, fake_run
from vrl_jax.report import markdown_tables


def cells(text):
    """The rows of each table, as a reader sees them; the second line of a table is its rule."""
    tables = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            header, rule, *rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in block.split("\n"))
            assert len(rule) == len(header) and all(re.fullmatch(" --[-:] ", r) for r in rule)
            tables.append(
                [[re.sub(r"\\(.)", r"\1", c.strip()) for c in r] for r in (header, *rows)]
            )
    return tables


def change(path, **entries):
    dump(path, json.loads(path.read_text()) | entries)


def test_tables_of_two_runs(workdir, other_workdir):
    first, order = cells(markdown_tables.format_markdown([workdir, other_workdir]))
    assert first[0] == [
        "run", "encoder", "label", "knn (top-1 accuracy)", "linear (top-1 accuracy)",
        "retrieval @1 (recall)", "retrieval @5 (recall)", "chance (top-1 accuracy)",
    ]  # fmt: skip
    assert first[2] == [
        "tiny_bod", "Tiny (12.3 K parameters)", "static", "90.2 %", "97.1 %", "87.1 %", "95.3 %",
        "12.5 %",
    ]  # fmt: skip
    assert [row[0] for row in first[1:]] == ["tiny_bod"] * 2 + ["tiny_dualvar"] * 2
    assert order[1][3:] == ["73.2 %", "32.2 %", "12.5 %"]


def test_spread_untrained_and_changes_are_told(workdir):
    path = workdir / "results" / "linear_static.json"
    protocol = {"name": "dualvar", "changed": {"epochs": [2, 150]}}
    change(path, protocol=protocol, splits={"1": 0.9, "2": 0.92}, std=0.01)
    model = {"encoder": "Tiny", "parameters": 31300125, "init": "untrained"}
    change(workdir / "results" / "linear_dynamic.json", protocol=protocol, model=model)
    text = markdown_tables.format_markdown([workdir])
    heading, warning = text.index("### dualvar (changed)"), text.index("epochs 2 (the protocol")
    assert heading < warning < text.index("97.1 ± 1.0 %") < text.index("tiny\\_bod, untrained")
    assert "Tiny (31.3 M parameters)" in text
    assert "± is the standard deviation over 2 splits. Protocol: data.fingerprint 9bc1" in text


def test_names_cannot_break_a_table(tmp_path, rng):
    run = fake_run(tmp_path / "a|b_c*", rng)
    first, *_ = cells(markdown_tables.format_markdown([run]))
    assert {len(row) for row in first} == {8}
    assert first[1][0] == "a|b_c*"
