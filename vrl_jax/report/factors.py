"""Results of a kind, such as "order/shuffled" and "order/reversed": bars beside their table."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vrl_jax.report import plot, table
from vrl_jax.report.results import Result

MOST_WRITTEN = 12  # bars with their numbers above them
NARROW = 10  # bars that fit a drawing of the usual width
MOST_CLASSES = 16
HATCHES = {"solid": "", "dashed": "////", "dashdot": "...."}  # as curves are dashed


class FactorGroup(NamedTuple):
    """Results of one kind: `plots` show what `tables` say in numbers.

    Attributes:
      heading: the prefix that their names share.
      tables: one for each way in which they were measured.
      plots: the bars, one plot for each unit; with several runs and label.
      classes: by title, what differs most from class to class.
    """

    heading: str
    tables: list[table.Table]
    plots: list[plot.Plot]
    classes: dict[str, table.Grid]


class Bars(NamedTuple):
    """Bars that look alike: a number for each of some columns."""

    label: str
    color: str
    hatch: str
    cells: dict[table.Column, table.Cell]


def factor_groups(results: list[Result], runs: list[str]) -> list[FactorGroup]:
    """Return the results whose names have a prefix, by prefix.

    Columns that were measured in different ways share a plot only as long as each was measured in
    one way alone.

    Args:
      results: of one run or several.
      runs: the names of all runs on the page; their order decides on colours.
    """
    found = []
    for kind, own in group_by_prefix(results).items():
        tables = table.build_tables(own)
        columns = [column for part in tables for column in part.columns]
        parts = [tables] if len(set(columns)) == len(columns) else [[part] for part in tables]
        for part in parts:
            measures = {one.measure for one in part}
            classes = _classes([r for r in own if r.measure in measures], len(runs) > 1)
            found.append(FactorGroup(kind, part, _plots(part, runs), classes))
    return found


def group_by_prefix(results: list[Result]) -> dict[str, list[Result]]:
    """Return the results whose names have a prefix, by prefix and without it."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        if result.kind:
            name = result.name.removeprefix(f"{result.kind}/")
            kinds.setdefault(result.kind, []).append(replace(result, name=name))
    return kinds


def _plots(tables: list[table.Table], runs: list[str]) -> list[plot.Plot]:
    columns = table.leading_columns([column for part in tables for column in part.columns])
    rows = sorted((row for part in tables for row in part.rows), key=lambda row: row.untrained)
    labels = list(dict.fromkeys(row.label for row in rows))
    scales: dict[str, list[table.Column]] = {}
    for column in columns:
        scales.setdefault("" if column.percent else column.metric, []).append(column)
    if len(runs) == 1:
        bars = _bars(rows, labels, lambda row: row.label)
        return [draw_bars(scale, own, bars, len(bars) > 1) for scale, own in scales.items()]
    return [
        draw_bars(
            ", ".join(filter(None, [label, scale])),
            own,
            _bars([row for row in rows if row.label == label], runs, lambda row: row.run),
            legend=False,
        )
        for label in labels
        for scale, own in scales.items()
    ]


def _bars(rows: list[table.Row], order: list[str], name: Callable[[table.Row], str]) -> list[Bars]:
    """Return the rows' numbers; rows of one model from several tables become one."""
    bars: dict[tuple, Bars] = {}
    for row in rows:
        color, dash = plot.curve_style(order.index(name(row)))
        if row.untrained:
            color = to_hex(0.35 * np.array(to_rgb(color)) + 0.65)
        label = " ".join(filter(None, [name(row), "untrained" * row.untrained]))
        key = (row.run, row.label, row.untrained, *row.model.items())
        while key in bars and bars[key].cells.keys() & row.cells.keys():
            key = (*key, "again")  # a second result of the same kind gets a bar of its own
        bars.setdefault(key, Bars(label, color, HATCHES[dash], {})).cells.update(row.cells)
    return list(bars.values())


def draw_bars(title: str, columns: list[table.Column], bars: list[Bars], legend: bool) -> plot.Plot:
    """Draw a group of bars a column, one of each colour; dotted lines are chance."""
    wide = len(columns) * len(bars) > NARROW
    percent = all(column.percent for column in columns)
    with matplotlib.rc_context(plot.STYLE | {"axes.grid.axis": "y"}):
        figure = Figure(figsize=(7.0 if wide else 3.4, 2.3), layout="constrained")
        axes = figure.add_subplot()
        thick = 0.8 / len(bars)
        for place, one in enumerate(bars):
            given = [i for i, column in enumerate(columns) if column in one.cells]
            cells = [one.cells[columns[i]] for i in given]
            centers = np.array(given) + (place - (len(bars) - 1) / 2) * thick
            drawn = axes.bar(
                centers, [c.value for c in cells], 0.92 * thick, color=one.color, hatch=one.hatch,
                edgecolor="white", linewidth=0,
            )  # fmt: skip
            if len(columns) * len(bars) <= MOST_WRITTEN:
                texts = [c.text.split()[0] for c in cells]
                axes.bar_label(drawn, texts, fontsize=7, color="#444444")
            for center, cell in zip(centers, cells, strict=True):
                if cell.chance is not None:
                    ends = (center - thick / 2, center + thick / 2)
                    axes.plot(ends, [cell.chance] * 2, color="#000000", ls="dotted", lw=1.3)
        axes.axhline(0, color="#888888", lw=0.8)
        axes.set_xlim(-0.6, len(columns) - 0.4)
        names = [column.name for column in columns]
        slanted = max(map(len, names)) * len(names) > (70 if wide else 32)
        slant = {"rotation": 25, "ha": "right"} if slanted else {}
        axes.set_xticks(range(len(names)), names, **slant)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if percent:
            axes.yaxis.set_major_formatter(plot.format_percent)
        drawing = plot.figure_svg(figure, title)
    said = (
        f"{one.label}: " + ", ".join(f"{c.name} {one.cells[c].text}" for c in one.cells)
        for one in bars
    )
    lines = tuple(plot.Line(b.label, np.empty(0), np.empty(0), b.color) for b in bars)
    return plot.Plot(title, drawing, f"Bars: {'; '.join(said)}", lines if legend else (), wide)


def _classes(results: list[Result], several: bool) -> dict[str, table.Grid]:
    """Return, for each run and label, the classes between whose results most lies."""
    groups: dict[str, dict[str, Result]] = {}
    for result in results:
        if result.per_class:
            words = [result.run * several, result.label, "untrained" * result.untrained]
            groups.setdefault(" ".join(filter(None, words)), {})[result.name] = result
    return {title: _grid(own) for title, own in groups.items()}


def _grid(results: dict[str, Result]) -> table.Grid:
    names = dict.fromkeys(name for result in results.values() for name in result.per_class)
    found = {n: [r.per_class.get(n) for r in results.values()] for n in names}
    spread = {n: np.ptp([v for v in values if v is not None]) for n, values in found.items()}
    rows = []
    for name in sorted(names, key=lambda name: -spread[name])[:MOST_CLASSES]:
        cells = zip(found[name], results.values(), strict=True)
        rows.append(
            [
                name,
                *(
                    "—" if v is None else table.format_number(v, table.is_fraction(r.metric))
                    for v, r in cells
                ),
            ]
        )
    return table.Grid(["class", *results], rows)
