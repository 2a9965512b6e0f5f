"""Tables of results, one per evaluation protocol and data set."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vrl_jax.report.result_files import Result

FRACTIONS = ("accuracy", "recall", "precision", "share")  # metrics printed in per cent
ABSENT = "not set"


class Grid(NamedTuple):
    """A table of text; the first column is the heading of the row."""

    header: list[str]
    rows: list[list[str]]


class Column(NamedTuple):
    """One measured quantity; `rank` is the k of a metric "at k", else ""."""

    name: str
    rank: str
    metric: str

    @property
    def title(self) -> str:
        """The column's heading."""
        return f"{self.name} @{self.rank}" if self.rank else self.name

    @property
    def percent(self) -> bool:
        """Whether its numbers are fractions."""
        return is_fraction(self.metric)


class Cell(NamedTuple):
    """One number.

    Attributes:
      value: the number.
      percent: whether it is a fraction, printed in per cent.
      chance: chance level, where known.
      std: standard deviation over `parts`, for a mean.
      part: the dimension of the mean, "splits" or "groups".
      parts: the averaged values.
    """

    value: int | float
    percent: bool
    chance: int | float | None = None
    std: float | None = None
    part: str = ""
    parts: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """The formatted number, with its standard deviation."""
        if self.std is None:
            return format_number(self.value, self.percent)
        texts = (
            format_number(value, self.percent).removesuffix(" %")
            for value in (self.value, self.std)
        )
        return " ± ".join(texts) + " %" * self.percent

    @property
    def note(self) -> str:
        """The number and range of the averaged values; "" where the value is not a mean."""
        if not self.parts:
            return ""
        low, high = (format_number(f(self.parts), self.percent) for f in (min, max))
        return f"{len(self.parts)} {self.part}: {low} to {high}"


@dataclass(frozen=True)
class Row:
    """Scores of one model on one label; `model` identifies the encoder and the code."""

    run: str
    label: str
    untrained: bool
    model: dict[str, str]
    cells: dict[Column, Cell]

    @property
    def chance(self) -> str:
        """The chance level: one number where all columns agree, else one per column."""
        cells = {k.title: c for k, c in self.cells.items() if c.chance is not None}
        texts = {title: format_number(cell.chance, cell.percent) for title, cell in cells.items()}
        if len(set(texts.values())) > 1:
            return ", ".join(f"{title} {text}" for title, text in texts.items())
        return next(iter(texts.values()), "")


@dataclass(frozen=True)
class Table:
    """Results under one protocol on one data set.

    Attributes:
      measure: protocol and data, see `Result.measure`.
      name: of the protocol; "" where it has none.
      protocol: text of each dotted setting, including the identity of the data.
      differs: the settings in which this table differs from others of its name, or with a column
        in common.
      changed: a sentence for each setting that deviates from the named protocol.
      columns: measured quantities.
      rows: one per run, label and model, untrained encoders last.
    """

    measure: str
    name: str
    protocol: dict[str, str]
    differs: dict[str, str]
    changed: list[str]
    columns: list[Column]
    rows: list[Row]

    @property
    def title(self) -> str:
        """The protocol's name, marked where a setting deviates."""
        return f"{self.name} (changed)" if self.changed else self.name

    @property
    def heading(self) -> str:
        """The title with the settings in which this table differs from others."""
        differs = [f"{key} {value}" for key, value in self.differs.items()]
        return ", ".join(filter(None, [self.title, *differs]))

    @property
    def chances(self) -> list[str]:
        """The metrics with a chance level in some row."""
        metrics = [k.metric for r in self.rows for k, c in r.cells.items() if c.chance is not None]
        return list(dict.fromkeys(metrics))

    @property
    def details(self) -> list[str]:
        """The entries of `Row.model` that differ between rows."""
        keys = dict.fromkeys(key for row in self.rows for key in row.model)
        return [key for key in keys if len({row.model.get(key) for row in self.rows}) > 1]

    @property
    def shared(self) -> dict[str, str]:
        """The entries of `Row.model` that all rows have in common."""
        details = {*self.details}
        return {k: v for k, v in self.rows[0].model.items() if k not in details}


def build_tables(results: list[Result]) -> list[Table]:
    """Return one table for each protocol and data set among the results."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.measure, []).append(result)
    tables = [_tabulate(group) for group in groups.values()]
    return [replace(table, differs=_differences(table, tables)) for table in tables]


def table_heading(results: list[Result]) -> dict[str, str]:
    """Return the headings of the tables of some results, by `Result.measure`."""
    return {table.measure: table.heading for table in build_tables(results)}


def leading_columns(columns: list[Column]) -> list[Column]:
    """Return the first column of each name, such as @1 of @1 and @5."""
    return list({column.name: column for column in reversed(columns)}.values())[::-1]


def is_fraction(metric: str) -> bool:
    """Return whether a metric is printed in per cent."""
    return any(word in metric for word in FRACTIONS)


def flatten_dict(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested dict as dotted key to text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten_dict(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def format_duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_number(value: int | float | None, percent: bool = False) -> str:
    """Return a number as text: 0.9713 as 97.1 %, 12345 as 12,345."""
    if value is None:
        return "none"
    if percent:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def encoder_name(model: dict[str, Any]) -> str:
    """Return an encoder's name with its size, such as R2Plus1D (31.3 M parameters)."""
    if "function" in model:
        return f"function {model['function']}"
    name, count = str(model.get("encoder", "")), model.get("parameters")
    if not isinstance(count, int):
        return name
    for scale, unit in ((10**6, "M"), (1000, "K")):
        if count >= scale:
            return f"{name} ({count / scale:.1f} {unit} parameters)"
    return f"{name} ({count} parameters)"


def shorten_hash(text: str) -> str:
    """Return text with a hash at its beginning cut to 10 digits."""
    first, *rest = text.split(" ")
    is_hash = len(first) >= 32 and not set(first) - set("0123456789abcdef")
    return " ".join([f"{first[:10]}…", *rest]) if is_hash else text


def _tabulate(results: list[Result]) -> Table:
    rows: dict[tuple, Row] = {}
    columns: dict[Column, None] = {}
    repeats: Counter = Counter()
    for result in results:
        model = _model(result.model)
        row = Row(result.run, result.label, result.untrained, model, {})
        for column, cell in _cells(result).items():
            key = (row.run, row.label, *model.items())
            repeats[key, column] += 1  # a second result of the same kind gets a row of its own
            rows.setdefault((*key, repeats[key, column]), row).cells[column] = cell
            columns[column] = None
    protocol = results[0].protocol
    settings = {key: value for key, value in protocol.items() if key not in ("name", "changed")}
    return Table(
        measure=results[0].measure,
        name=str(protocol.get("name", "")),
        protocol={
            **flatten_dict(_without_underscores(settings)),
            **flatten_dict(_without_underscores(results[0].data), "data."),
        },
        differs={},
        changed=_changes(protocol.get("changed") or {}),
        columns=list(columns),
        rows=sorted(rows.values(), key=lambda row: row.untrained),
    )


def _without_underscores(entries: dict[str, Any]) -> dict[str, Any]:
    """Return entries with printable names; names of nested settings are unchanged."""
    return {key.replace("_", " "): value for key, value in entries.items()}


def _model(model: dict[str, Any]) -> dict[str, str]:
    """Return the entries of a model as text, its name and size in one."""
    details = {
        k: v
        for k, v in model.items()
        if k not in ("encoder", "parameters") and (k != "init" or v not in ("", "untrained"))
    }
    return {"encoder": encoder_name(model), **flatten_dict(details)} if model else {}


def _cells(result: Result) -> dict[Column, Cell]:
    cells = {}
    for rank, value in result.values.items():
        column = Column(result.name, rank, result.metric)
        chance = result.chance.get(rank, result.chance.get(""))
        parts = tuple(result.parts.values())
        cells[column] = Cell(value, column.percent, chance, result.std, result.part, parts)
    for metric, value in result.more.items():
        column = Column(result.name, "", metric)
        cells.setdefault(column, Cell(value, column.percent))
    return cells


def _changes(changed: dict[str, list]) -> list[str]:
    sentences = []
    for key, pair in changed.items():
        actual, named = (value if isinstance(value, str) else json.dumps(value) for value in pair)
        sentences.append(f"{key} {actual} (the protocol has {named})")
    return sentences


def _differences(table: Table, tables: list[Table]) -> dict[str, str]:
    related = [
        other
        for other in tables
        if other.name == table.name or set(other.columns) & set(table.columns)
    ]
    keys = dict.fromkeys(key for other in (table, *related) for key in other.protocol)
    return {
        key: shorten_hash(table.protocol.get(key, ABSENT))
        for key in keys
        if len({other.protocol.get(key) for other in (table, *related)}) > 1
    }
