"""Results side by side, one table per evaluation protocol: a column never mixes two."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

FRACTIONS = ("accuracy", "recall", "precision")  # metrics that are shown in per cent


class Column(NamedTuple):
    """One measured quantity; `rank` is the k of a metric "at k", else empty."""

    name: str
    rank: str
    metric: str

    @property
    def title(self) -> str:
        """The column's heading."""
        return f"{self.name} @{self.rank}" if self.rank else self.name


class Cell(NamedTuple):
    """One number, and what guessing would score."""

    value: int | float
    chance: int | float | None
    percent: bool

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return number(self.value, self.percent)

    @property
    def note(self) -> str:
        """The chance level as it is shown, or nothing."""
        return "" if self.chance is None else f"chance {number(self.chance, self.percent)}"


@dataclass(frozen=True)
class Row:
    """What one model scored for one label; `model` describes the model and the code."""

    run: str
    label: str
    model: dict[str, str]
    cells: dict[Column, Cell]


@dataclass(frozen=True)
class Table:
    """Results that were measured in the same way.

    Attributes:
      protocol: dotted setting to its text, including the identity of the data.
      differs: the settings in which tables with a column in common disagree.
      columns: what was measured.
      rows: one per run, label and model.
    """

    protocol: dict[str, str]
    differs: dict[str, str]
    columns: list[Column]
    rows: list[Row]


def build(results: list[dict[str, Any]]) -> list[Table]:
    """Return one table for each distinct protocol among the results of one or more runs.

    Args:
      results: contents of result files; "run" names the run a result belongs to.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(json.dumps(_protocol(result), sort_keys=True), []).append(result)
    tables = [_tabulate(group) for group in groups.values()]
    return [
        Table(table.protocol, _differences(table, tables), table.columns, table.rows)
        for table in tables
    ]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested dict as dotted key to text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def number(value: int | float | None, percent: bool = False) -> str:
    """Return a number as a person reads it: 0.9713 as 97.1 %, 12345 as 12,345."""
    if value is None:
        return "none"
    if percent:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _protocol(result: dict[str, Any]) -> dict[str, str]:
    return flatten({**result["protocol"], "data": result.get("data", {})})


def _tabulate(results: list[dict[str, Any]]) -> Table:
    rows: dict[tuple, Row] = {}
    columns: dict[Column, None] = {}
    seen: Counter = Counter()
    for result in results:
        model = flatten(result.get("model", {}))
        if "commit" in result:
            model["commit"] = str(result["commit"])
        row = Row(result.get("run", ""), result.get("label", ""), model, {})
        for column, cell in _cells(result).items():
            key = (row.run, row.label, *model.items())
            seen[key, column] += 1  # a second result of the same kind gets a row of its own
            rows.setdefault((*key, seen[key, column]), row).cells[column] = cell
            columns[column] = None
    return Table(_protocol(results[0]), {}, list(columns), list(rows.values()))


def _cells(result: dict[str, Any]) -> dict[Column, Cell]:
    metric = result.get("metric", "recall" if "values" in result else "")
    percent = any(word in metric for word in FRACTIONS)
    chance = result.get("chance")
    if "value" in result:
        return {Column(result["name"], "", metric): Cell(result["value"], chance, percent)}
    chances = chance if isinstance(chance, dict) else {}
    return {
        Column(result["name"], rank, metric): Cell(value, chances.get(rank), percent)
        for rank, value in result["values"].items()
    }


def _differences(table: Table, tables: list[Table]) -> dict[str, str]:
    rivals = [other for other in tables if set(other.columns) & set(table.columns)]
    return {
        key: value
        for key, value in table.protocol.items()
        if any(other.protocol.get(key) != value for other in rivals)
    }
