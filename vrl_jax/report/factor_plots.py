"""Results whose names share a prefix, such as "order/shuffled" and "order/reversed".

Each prefix becomes a group of tables and bar plots.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vrl_jax.report import result_table, svg_plots
from vrl_jax.report.result_files import Result

MAX_ANNOTATED = 12  # bars; beyond that numbers above them would overlap
MAX_NARROW = 10  # bars in a drawing of the usual width
MAX_CLASSES = 16
HATCHES = {"solid": "", "dashed": "////", "dashdot": "...."}  # by the dash of curves

# Title and explanation of the groups that `vrl_jax.factors` makes.
DESCRIPTIONS = {
    "order": (
        "Frame order",
        "Linear probe trained on ordered clips, tested on the test clips with their frames in "
        "order, shuffled (mean over permutations), reversed, frozen (the middle frame repeated) "
        "and held (every second frame shown twice).",
    ),
    "attentive": (
        "Attentive probe",
        "A learned query attends to tokens of ordered clips, with positions in time.",
    ),
    "arrow": ("Arrow of time", "Linear probe that separates forward from backward clips."),
    "floor": (
        "Pixel baselines",
        "Linear probe on 32 × 32 pixels without an encoder: the middle frame in grey (appearance) "
        "and the mean absolute difference of successive frames (motion).",
    ),
    "scuba": (
        "SCUBA and SCUFO on stripes",
        "The masked foreground of the test videos on sinusoidal stripes. scuba: moving; scufo: one "
        "frame repeated; contrasted: correct on scuba and wrong on scufo.",
    ),
    "scuba-stills": (
        "SCUBA and SCUFO on other videos",
        "The masked foreground of the test videos on a still of another video. scuba: moving; "
        "scufo: one frame repeated; contrasted: correct on scuba and wrong on scufo.",
    ),
    "units": (
        "Static and dynamic units",
        "Shares of channels whose responses correlate between clips of the same appearance "
        "(static), of the same motion (dynamic), in both cases (joint) or in neither (residual).",
    ),
    "koopman": (
        "Koopman operators",
        "Operators fitted to the frame features of each clip. static: share of eigenvalues close "
        "to 1; angle: mean rotation per frame; residual: error of forecasting held-out frames.",
    ),
}


class FactorGroup(NamedTuple):
    """Results whose names share a prefix.

    Attributes:
      heading: the prefix.
      tables: one per protocol.
      plots: the same numbers as bars, one plot per unit; with several runs, also per label.
      classes: by title, the classes whose results differ most.
    """

    heading: str
    tables: list[result_table.Table]
    plots: list[svg_plots.Plot]
    classes: dict[str, result_table.Grid]

    @property
    def title(self) -> str:
        """A readable name of the group."""
        return DESCRIPTIONS.get(self.heading, (self.heading, ""))[0]

    @property
    def note(self) -> str:
        """An explanation of the columns; "" for prefixes of other origin."""
        return DESCRIPTIONS.get(self.heading, ("", ""))[1]


class Bars(NamedTuple):
    """Bars of one colour: one number for each of some columns."""

    label: str
    color: str
    hatch: str
    cells: dict[result_table.Column, result_table.Cell]


def factor_groups(results: list[Result], runs: list[str]) -> list[FactorGroup]:
    """Return the groups of the results whose names have a prefix.

    Columns of several protocols share a plot as long as each column has one protocol only.

    Args:
      results: of one run or several.
      runs: names of all runs on the page, whose order determines the colours.
    """
    groups = []
    for prefix, members in group_by_prefix(results).items():
        tables = result_table.build_tables(members)
        columns = [column for part in tables for column in part.columns]
        parts = [tables] if len(set(columns)) == len(columns) else [[part] for part in tables]
        for part in parts:
            measures = {one.measure for one in part}
            classes = _classes([r for r in members if r.measure in measures], len(runs) > 1)
            groups.append(FactorGroup(prefix, part, _plots(part, runs), classes))
    return groups


def group_by_prefix(results: list[Result]) -> dict[str, list[Result]]:
    """Return the results whose names have a prefix, by prefix; the prefix is removed from names."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.prefix:
            name = result.name.removeprefix(f"{result.prefix}/")
            groups.setdefault(result.prefix, []).append(replace(result, name=name))
    return groups


def _plots(tables: list[result_table.Table], runs: list[str]) -> list[svg_plots.Plot]:
    columns = result_table.leading_columns([column for part in tables for column in part.columns])
    rows = sorted((row for part in tables for row in part.rows), key=lambda row: row.untrained)
    labels = list(dict.fromkeys(row.label for row in rows))
    by_unit: dict[str, list[result_table.Column]] = {}
    for column in columns:
        by_unit.setdefault("percent" if column.percent else column.metric, []).append(column)
    scales = [(", ".join(dict.fromkeys(c.metric for c in own)), own) for own in by_unit.values()]
    if len(runs) == 1:
        bars = _bars(rows, labels, lambda row: row.label)
        return [draw_bars(scale, own, bars, len(bars) > 1) for scale, own in scales]
    return [
        draw_bars(
            ", ".join(filter(None, [label, scale])),
            own,
            _bars([row for row in rows if row.label == label], runs, lambda row: row.run),
            legend=False,
        )
        for label in labels
        for scale, own in scales
    ]


def _bars(
    rows: list[result_table.Row], order: list[str], name: Callable[[result_table.Row], str]
) -> list[Bars]:
    """Return the rows' numbers; rows of one model from several tables become one."""
    bars: dict[tuple, Bars] = {}
    for row in rows:
        color, dash = svg_plots.curve_style(order.index(name(row)))
        if row.untrained:
            color = to_hex(0.35 * np.array(to_rgb(color)) + 0.65)
        label = " ".join(filter(None, [name(row), "untrained" * row.untrained]))
        key = (row.run, row.label, row.untrained, *row.model.items())
        while key in bars and bars[key].cells.keys() & row.cells.keys():
            key = (*key, "repeated")  # a second result of the same kind gets a bar of its own
        bars.setdefault(key, Bars(label, color, HATCHES[dash], {})).cells.update(row.cells)
    return list(bars.values())


def draw_bars(
    title: str, columns: list[result_table.Column], bars: list[Bars], legend: bool
) -> svg_plots.Plot:
    """Draw a group of bars per column, one bar of each colour; dotted lines mark chance."""
    wide = len(columns) * len(bars) > MAX_NARROW
    annotate = len(columns) * len(bars) <= MAX_ANNOTATED
    with matplotlib.rc_context(svg_plots.STYLE | {"axes.grid.axis": "y"}):
        figure = Figure(figsize=(7.0 if wide else 3.4, 2.3), layout="constrained")
        axes = figure.add_subplot()
        width = 0.8 / len(bars)
        for index, one in enumerate(bars):
            _draw_bars(axes, one, columns, (index - (len(bars) - 1) / 2) * width, width, annotate)
        axes.axhline(0, color="#888888", lw=0.8)
        axes.set_xlim(-0.6, len(columns) - 0.4)
        names = [column.name for column in columns]
        slanted = max(map(len, names)) * len(names) > (70 if wide else 32)
        slant = {"rotation": 25, "ha": "right"} if slanted else {}
        axes.set_xticks(range(len(names)), names, **slant)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if all(column.percent for column in columns):
            axes.yaxis.set_major_formatter(svg_plots.format_percent)
        drawing = svg_plots.figure_svg(figure, title)
    texts = (
        f"{one.label}: " + ", ".join(f"{c.name} {one.cells[c].text}" for c in one.cells)
        for one in bars
    )
    lines = tuple(svg_plots.Line(b.label, np.empty(0), np.empty(0), b.color) for b in bars)
    return svg_plots.Plot(
        title, drawing, f"Bars: {'; '.join(texts)}", lines if legend else (), wide
    )


def _draw_bars(
    axes: Axes,
    bars: Bars,
    columns: list[result_table.Column],
    shift: float,
    width: float,
    annotate: bool,
) -> None:
    """Draw the bars of one colour, each `shift` beside the centre of its column."""
    positions = [i for i, column in enumerate(columns) if column in bars.cells]
    cells = [bars.cells[columns[i]] for i in positions]
    centers = np.array(positions) + shift
    container = axes.bar(
        centers, [c.value for c in cells], 0.92 * width, color=bars.color, hatch=bars.hatch,
        edgecolor="white", linewidth=0,
    )  # fmt: skip
    if annotate:
        texts = [c.text.split()[0] for c in cells]
        axes.bar_label(container, texts, fontsize=7, color="#444444")
    for center, cell in zip(centers, cells, strict=True):
        if cell.chance is not None:
            ends = (center - width / 2, center + width / 2)
            axes.plot(ends, [cell.chance] * 2, color="#000000", ls="dotted", lw=1.3)


def _classes(results: list[Result], several: bool) -> dict[str, result_table.Grid]:
    """Return, for each run and label, the classes whose results differ most between columns."""
    groups: dict[str, dict[str, Result]] = {}
    for result in results:
        if result.per_class:
            words = [result.run * several, result.label, "untrained" * result.untrained]
            groups.setdefault(" ".join(filter(None, words)), {})[result.name] = result
    return {title: _class_grid(by_name) for title, by_name in groups.items()}


def _class_grid(results: dict[str, Result]) -> result_table.Grid:
    names = dict.fromkeys(name for result in results.values() for name in result.per_class)
    values = {n: [r.per_class.get(n) for r in results.values()] for n in names}
    spread = {n: np.ptp([v for v in row if v is not None]) for n, row in values.items()}
    rows = []
    for name in sorted(names, key=lambda name: -spread[name])[:MAX_CLASSES]:
        cells = zip(values[name], results.values(), strict=True)
        texts = (
            "—" if v is None else result_table.format_number(v, result_table.is_fraction(r.metric))
            for v, r in cells
        )
        rows.append([name, *texts])
    return result_table.Grid(["class", *results], rows)
