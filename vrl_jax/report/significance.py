"""Runs against the first one, video by video: which classes gained, and can it be chance."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vrl_jax.report import confusion, plot, table
from vrl_jax.report.results import Predictions, Result

MOST = 12  # gains, and as many losses
TINY = 1e-6  # p-values below it are all the same
LONGEST = 30  # letters of a name along the axis
GAIN, LOSS = plot.PALETTE[0], plot.PALETTE[1]


class PairedPredictions(NamedTuple):
    """Two runs' predictions for the videos that both judged, in the same order.

    Attributes:
      labels: int[n].
      first: bool[n], whether the first run was right.
      other: bool[n], whether the other one was.
      classes: str[c].
    """

    labels: np.ndarray
    first: np.ndarray
    other: np.ndarray
    classes: np.ndarray

    @property
    def p(self) -> float:
        """How likely chance alone sets runs apart that far, by McNemar's exact test."""
        return mcnemar_p(
            int((self.first & ~self.other).sum()), int((self.other & ~self.first).sum())
        )


class RunComparison(NamedTuple):
    """What one evaluation says of several runs: a row and a plot for each but the first."""

    title: str
    grid: table.Grid
    plots: list[plot.Plot]


def compare_runs(results: list[Result]) -> list[RunComparison]:
    """Return one entry for each evaluation that the first of the runs and others went through.

    Only results of one protocol and data set meet, and those of trained encoders.
    Raises `ValueError` naming the files where two disagree on what there was to be told, or have
    no video in common.
    """
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        if result.predictions and not result.untrained and not result.kind:
            groups.setdefault((result.measure, result.name, result.label), []).append(result)
    headings = table.table_heading(results)
    contests = []
    for (measure, *_), (first, *rest) in groups.items():
        others = [result for result in rest if result.run != first.run]
        if others:
            contests.append(
                _contest(confusion.matrix_title(first, headings[measure]), first, others)
            )
    return contests


def mcnemar_p(one: int, other: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Where runs are equally good, which of the two is right on a video that they disagree on is a
    coin's toss: min(1, 2 Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c)).

    Args:
      one: b, the videos that only the first run is right on.
      other: c, those that only the second one is right on.
    """
    total, ways, below = one + other, 1, 0
    for i in range(min(one, other) + 1):
        below += ways
        ways = ways * (total - i) // (i + 1)
    return min(1.0, 2 * below / 2**total)


def pair_predictions(first: Predictions, other: Predictions) -> PairedPredictions:
    """Return what two runs said of the videos that both could read and named once.

    Raises `ValueError` naming the files where classes or labels disagree.
    """
    if not np.array_equal(first.classes, other.classes):
        raise ValueError(f"{first.path} and {other.path} name different classes")
    places, rivals = _places(first), _places(other)
    common = [id for id in places if id in rivals]
    here = np.array([places[id] for id in common], int)
    there = np.array([rivals[id] for id in common], int)
    labels = first.labels[here]
    if (differs := labels != other.labels[there]).any():
        raise ValueError(
            f"{first.path} and {other.path} give {common[differs.argmax()]} different labels"
        )
    right = first.predictions[here] == labels, other.predictions[there] == labels
    return PairedPredictions(labels, *right, first.classes)


def _places(found: Predictions) -> dict[str, int]:
    """Return where each video stands that could be read and is named once."""
    ids, places, times = np.unique(found.ids, return_index=True, return_counts=True)
    kept = (times == 1) & (found.predictions[places] >= 0)
    return dict(zip(ids[kept].tolist(), places[kept].tolist(), strict=True))


def _contest(title: str, first: Result, others: list[Result]) -> RunComparison:
    rows, plots = [], []
    for other in others:
        both = pair_predictions(first.predictions, other.predictions)
        if not len(both.labels):
            rows.append([other.run, "0", *["—"] * 5])
            continue
        gains = [(both.other & ~both.first).sum(), (both.first & ~both.other).sum()]
        shares = [table.format_number(float(x.mean()), True) for x in (both.other, both.first)]
        chance = f"{both.p:.2g}" if both.p >= TINY else f"below {TINY:g}"
        rows.append([other.run, f"{len(both.labels):,}", *shares, *map(str, gains), chance])
        plots.append(draw_differences(other.run, both))
    header = ["run", "videos", "right", "first run right", "only this run right"]
    header += ["only first run right", "p"]
    return RunComparison(f"{title}, against {first.run}", table.Grid(header, rows), plots)


def class_differences(both: PairedPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the other run's accuracy less the first one's, and the videos, f64[c] and int[c]."""
    size = len(both.classes)
    videos = np.bincount(both.labels, minlength=size)
    gained = both.other.astype(float) - both.first
    sums = np.bincount(both.labels, gained, minlength=size)
    return sums / np.maximum(videos, 1), videos


def draw_differences(title: str, both: PairedPredictions) -> plot.Plot:
    """Draw the classes that gained and lost most, with their numbers of videos."""
    change, videos = class_differences(both)
    order = np.argsort(-change, kind="stable")
    gained, lost = order[change[order] > 0][:MOST], order[change[order] < 0][-MOST:]
    shown = np.concatenate([gained, lost])
    names = [str(both.classes[i]) for i in shown]
    short = [n if len(n) <= LONGEST else n[: LONGEST - 1] + "…" for n in names]
    ticks = [f"{n} ({videos[i]})" for n, i in zip(short, shown, strict=True)]
    with matplotlib.rc_context(plot.STYLE | {"axes.grid.axis": "x", "font.size": 7.5}):
        height = 0.5 + 0.155 * max(3, len(shown))
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        colors = [GAIN if change[i] > 0 else LOSS for i in shown]
        axes.barh(range(len(shown)), change[shown], 0.75, color=colors)
        axes.axvline(0, color="#888888", lw=0.8)
        axes.set_yticks(range(len(shown)), ticks)
        axes.set_ylim(max(3, len(shown)) - 0.4, -0.6)
        limit = 1.05 * max(0.02, np.abs(change).max())
        axes.set_xlim(-limit, limit)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(plot.format_percent)
        drawing = plot.figure_svg(figure, title)
    said = f"{title}: {(change > 0).sum()} classes gained, {(change < 0).sum()} lost"
    words = [f"{n} {100 * change[i]:+.0f}" for n, i in zip(names, shown, strict=True)]
    return plot.Plot(said, drawing, f"{said}, in points: {', '.join(words)}")
