"""Results side by side, one table per evaluation protocol: a column never mixes two."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vrl_jax.report.results import Result

FRACTIONS = ("accuracy", "recall", "precision", "share")  # metrics that are shown in per cent
ABSENT = "not given"


class Grid(NamedTuple):
    """A plain table of text; the first column names the row."""

    header: list[str]
    rows: list[list[str]]


class Column(NamedTuple):
    """One measured quantity; `rank` is the k of a metric "at k", else empty."""

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
    """One number; what guessing would score; for a mean, of what and how far apart they are."""

    value: int | float
    percent: bool
    chance: int | float | None = None
    std: float | None = None
    part: str = ""
    parts: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """The number as it is shown."""
        if self.std is None:
            return format_number(self.value, self.percent)
        texts = (
            format_number(value, self.percent).removesuffix(" %")
            for value in (self.value, self.std)
        )
        return " ± ".join(texts) + " %" * self.percent

    @property
    def note(self) -> str:
        """What a mean is of and between which numbers it lies, or nothing."""
        if not self.parts:
            return ""
        least, most = (format_number(f(self.parts), self.percent) for f in (min, max))
        return f"{len(self.parts)} {self.part}: {least} to {most}"


@dataclass(frozen=True)
class Row:
    """What one model scored for one label; `model` describes the model and the code."""

    run: str
    label: str
    untrained: bool
    model: dict[str, str]
    cells: dict[Column, Cell]

    @property
    def chance(self) -> str:
        """What guessing scores: once where all columns agree, else for each that knows."""
        known = {k.title: c for k, c in self.cells.items() if c.chance is not None}
        texts = {title: format_number(cell.chance, cell.percent) for title, cell in known.items()}
        if len(set(texts.values())) > 1:
            return ", ".join(f"{title} {text}" for title, text in texts.items())
        return next(iter(texts.values()), "")


@dataclass(frozen=True)
class Table:
    """Results that were measured in the same way.

    Attributes:
      measure: protocol and data, as results have it.
      name: of the protocol; "" where it has none.
      protocol: dotted setting to its text, including the identity of the data.
      differs: the settings in which this table and others of its name, or with a column in
        common, disagree.
      changed: a sentence for each setting that deviates from the named protocol.
      columns: what was measured.
      rows: one per run, label and model; those of untrained encoders last.
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
        """The protocol's name, which is no longer its own where something was changed."""
        return f"{self.name} (changed)" if self.changed else self.name

    @property
    def heading(self) -> str:
        """The title, and what tells this table from others."""
        differs = [f"{key} {value}" for key, value in self.differs.items()]
        return ", ".join(filter(None, [self.title, *differs]))

    @property
    def chances(self) -> list[str]:
        """The metrics of which some row knows what guessing scores."""
        known = [k.metric for r in self.rows for k, c in r.cells.items() if c.chance is not None]
        return list(dict.fromkeys(known))

    @property
    def details(self) -> list[str]:
        """What of the models differs between rows, beside the encoder."""
        keys = dict.fromkeys(key for row in self.rows for key in row.model)
        return [key for key in keys if len({row.model.get(key) for row in self.rows}) > 1]

    @property
    def shared(self) -> dict[str, str]:
        """What all rows' models have in common."""
        varies = {*self.details}
        return {k: v for k, v in self.rows[0].model.items() if k not in varies}


def build_tables(results: list[Result]) -> list[Table]:
    """Return one table for each distinct protocol and data among the results of some runs."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.measure, []).append(result)
    tables = [_tabulate(group) for group in groups.values()]
    return [replace(table, differs=_differences(table, tables)) for table in tables]


def table_heading(results: list[Result]) -> dict[str, str]:
    """Return the heading of the table that results belong to, by their measure."""
    return {table.measure: table.heading for table in build_tables(results)}


def leading_columns(columns: list[Column]) -> list[Column]:
    """Return the first column of each name: of @1 and @5, say, @1."""
    return list({column.name: column for column in reversed(columns)}.values())[::-1]


def is_fraction(metric: str) -> bool:
    """Return whether a metric is shown in per cent."""
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


def format_number(value: int | float | None, percent: bool = False) -> str:
    """Return a number as a person reads it: 0.9713 as 97.1 %, 12345 as 12,345."""
    if value is None:
        return "none"
    if percent:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def encoder_name(model: dict[str, Any]) -> str:
    """Return an encoder's name with its size: R2Plus1D (31.3 M parameters)."""
    name, count = str(model.get("encoder", "")), model.get("parameters")
    if not isinstance(count, int):
        return name
    for scale, unit in ((10**6, "M"), (1000, "K")):
        if count >= scale:
            return f"{name} ({count / scale:.1f} {unit} parameters)"
    return f"{name} ({count} parameters)"


def shorten_hash(text: str) -> str:
    """Return a hash by its first digits, and other text as it is."""
    is_hash = len(text) >= 32 and not set(text) - set("0123456789abcdef")
    return f"{text[:10]}…" if is_hash else text


def _tabulate(results: list[Result]) -> Table:
    rows: dict[tuple, Row] = {}
    columns: dict[Column, None] = {}
    seen: Counter = Counter()
    for result in results:
        model = _model(result.model)
        row = Row(result.run, result.label, result.untrained, model, {})
        for column, cell in _cells(result).items():
            key = (row.run, row.label, *model.items())
            seen[key, column] += 1  # a second result of the same kind gets a row of its own
            rows.setdefault((*key, seen[key, column]), row).cells[column] = cell
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
    """Return entries under the names that are printed; names of nested settings stay."""
    return {key.replace("_", " "): value for key, value in entries.items()}


def _model(model: dict[str, Any]) -> dict[str, str]:
    """Return what describes a model as text, its name and size in one."""
    rest = {
        k: v
        for k, v in model.items()
        if k not in ("encoder", "parameters") and (k, v) != ("init", "untrained")
    }
    return {"encoder": encoder_name(model), **flatten_dict(rest)} if model else {}


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
        did, has = (value if isinstance(value, str) else json.dumps(value) for value in pair)
        sentences.append(f"{key} {did} (the protocol has {has})")
    return sentences


def _differences(table: Table, tables: list[Table]) -> dict[str, str]:
    rivals = [
        other
        for other in tables
        if other.name == table.name or set(other.columns) & set(table.columns)
    ]
    keys = dict.fromkeys(key for other in (table, *rivals) for key in other.protocol)
    return {
        key: shorten_hash(table.protocol.get(key, ABSENT))
        for key in keys
        if len({other.protocol.get(key) for other in (table, *rivals)}) > 1
    }
