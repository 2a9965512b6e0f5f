"""Paired comparison of runs: McNemar's test and changes of per-class accuracy."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vrl_jax.report import confusion_matrix, result_table, svg_plots
from vrl_jax.report.result_files import Predictions, Result

MAX_CLASSES = 12  # with gains, and as many with losses
MIN_P = 1e-6  # smaller p-values are printed as "below"
MAX_NAME = 30  # letters of a class name along the axis
GAIN, LOSS = svg_plots.PALETTE[0], svg_plots.PALETTE[1]


class PairedPredictions(NamedTuple):
    """Correctness of two runs on the videos that both could read, in the same order.

    Attributes:
      labels: int[n], true classes.
      first: bool[n], whether the first run is correct.
      other: bool[n], whether the other run is correct.
      classes: str[c].
    """

    labels: np.ndarray
    first: np.ndarray
    other: np.ndarray
    classes: np.ndarray

    @property
    def p(self) -> float:
        """The p-value of McNemar's exact test."""
        return mcnemar_p(
            int((self.first & ~self.other).sum()), int((self.other & ~self.first).sum())
        )


class RunComparison(NamedTuple):
    """One evaluation of several runs: a row and a plot for each run except the first."""

    title: str
    grid: result_table.Grid
    plots: list[svg_plots.Plot]


def compare_runs(results: list[Result]) -> list[RunComparison]:
    """Return one entry for each evaluation that the first run shares with others.

    Only trained encoders under the same protocol and data are compared.

    Raises:
      ValueError: two files have different classes, or different labels for a video.
    """
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        if result.predictions and not result.untrained and not result.prefix:
            groups.setdefault((result.measure, result.name, result.label), []).append(result)
    headings = result_table.table_heading(results)
    comparisons = []
    for (measure, *_), (first, *rest) in groups.items():
        others = [result for result in rest if result.run != first.run]
        if others:
            comparisons.append(
                _comparison(confusion_matrix.matrix_title(first, headings[measure]), first, others)
            )
    return comparisons


def mcnemar_p(one: int, other: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Under the null hypothesis of equal accuracy, each run is equally likely to be the correct one
    on a video where they disagree: p = min(1, 2 Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c)).

    Args:
      one: b, the number of videos on which only the first run is correct.
      other: c, the number of videos on which only the second run is correct.
    """
    total, ways, below = one + other, 1, 0
    for i in range(min(one, other) + 1):
        below += ways
        ways = ways * (total - i) // (i + 1)
    return min(1.0, 2 * below / 2**total)


def pair_predictions(first: Predictions, other: Predictions) -> PairedPredictions:
    """Match two runs' predictions by video id; unreadable videos and repeated ids are left out.

    Raises:
      ValueError: classes, or the labels of a video, differ.
    """
    if not np.array_equal(first.classes, other.classes):
        raise ValueError(f"{first.path} and {other.path} have different classes")
    first_rows, other_rows = _rows_by_id(first), _rows_by_id(other)
    common = [id for id in first_rows if id in other_rows]
    here = np.array([first_rows[id] for id in common], int)
    there = np.array([other_rows[id] for id in common], int)
    labels = first.labels[here]
    if (differs := labels != other.labels[there]).any():
        raise ValueError(
            f"{first.path} and {other.path} have different labels for {common[differs.argmax()]}"
        )
    correct = first.predictions[here] == labels, other.predictions[there] == labels
    return PairedPredictions(labels, *correct, first.classes)


def _rows_by_id(predicted: Predictions) -> dict[str, int]:
    """Return the row of each readable video whose id occurs once."""
    ids, rows, counts = np.unique(predicted.ids, return_index=True, return_counts=True)
    usable = (counts == 1) & (predicted.predictions[rows] >= 0)
    return dict(zip(ids[usable].tolist(), rows[usable].tolist(), strict=True))


def _comparison(title: str, first: Result, others: list[Result]) -> RunComparison:
    rows, plots = [], []
    for other in others:
        both = pair_predictions(first.predictions, other.predictions)
        if not len(both.labels):
            rows.append([other.run, "0", *["—"] * 5])
            continue
        gains = [(both.other & ~both.first).sum(), (both.first & ~both.other).sum()]
        shares = [
            result_table.format_number(float(x.mean()), True) for x in (both.other, both.first)
        ]
        p = f"{both.p:.2g}" if both.p >= MIN_P else f"below {MIN_P:g}"
        rows.append([other.run, f"{len(both.labels):,}", *shares, *map(str, gains), p])
        plots.append(draw_differences(other.run, both))
    header = ["run", "videos", "accuracy", "accuracy of first run", "only this run correct"]
    header += ["only first run correct", "p"]
    return RunComparison(f"{title}, against {first.run}", result_table.Grid(header, rows), plots)


def class_differences(both: PairedPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return f64[c], the other run's accuracy minus the first one's, and int[c], the videos."""
    size = len(both.classes)
    videos = np.bincount(both.labels, minlength=size)
    gained = both.other.astype(float) - both.first
    sums = np.bincount(both.labels, gained, minlength=size)
    return sums / np.maximum(videos, 1), videos


def draw_differences(title: str, both: PairedPredictions) -> svg_plots.Plot:
    """Draw the largest changes of per-class accuracy, with the number of videos of each class."""
    change, videos = class_differences(both)
    order = np.argsort(-change, kind="stable")
    gains, losses = order[change[order] > 0][:MAX_CLASSES], order[change[order] < 0][-MAX_CLASSES:]
    extremes = np.concatenate([gains, losses])
    names = [str(both.classes[i]) for i in extremes]
    short = [n if len(n) <= MAX_NAME else n[: MAX_NAME - 1] + "…" for n in names]
    ticks = [f"{n} ({videos[i]})" for n, i in zip(short, extremes, strict=True)]
    with matplotlib.rc_context(svg_plots.STYLE | {"axes.grid.axis": "x", "font.size": 7.5}):
        height = 0.7 + 0.155 * max(3, len(extremes))
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot(xlabel="change of accuracy")
        colors = [GAIN if change[i] > 0 else LOSS for i in extremes]
        axes.barh(range(len(extremes)), change[extremes], 0.75, color=colors)
        axes.axvline(0, color="#888888", lw=0.8)
        axes.set_yticks(range(len(extremes)), ticks)
        axes.set_ylim(max(3, len(extremes)) - 0.4, -0.6)
        limit = 1.05 * max(0.02, np.abs(change).max())
        axes.set_xlim(-limit, limit)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(svg_plots.format_percent)
        drawing = svg_plots.figure_svg(figure, title)
    caption = f"{title}: {(change > 0).sum()} classes gained, {(change < 0).sum()} lost"
    points = [f"{n} {100 * change[i]:+.0f}" for n, i in zip(names, extremes, strict=True)]
    return svg_plots.Plot(caption, drawing, f"{caption}, in points: {', '.join(points)}")
