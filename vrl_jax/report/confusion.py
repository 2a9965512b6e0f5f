"""Which classes are taken for which: a heat map of each result, and its extremes in words."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from vrl_jax.report import plot, table
from vrl_jax.report.results import Predictions, Result

MOST_NAMED = 50  # classes whose names fit along the axes
MOST_WRITTEN = 12  # classes whose shares fit into the cells
PAIRS = 10
EXTREMES = 8  # best and worst classes
LONGEST = 26  # letters of a name along an axis


class Confusion(NamedTuple):
    """What one result says class by class.

    Attributes:
      title: the result.
      note: how many videos and classes.
      drawing: the heat map; None where only the classes' accuracies are known.
      pairs: the most frequent mistakes: class, what it was taken for, how often.
      best: the classes told best: name, accuracy, videos.
      worst: the others.
    """

    title: str
    note: str
    drawing: plot.Plot | None
    pairs: table.Grid
    best: table.Grid
    worst: table.Grid


def confusion_matrices(results: list[Result]) -> list[Confusion]:
    """Return one entry per result that tells classes apart, those of untrained encoders last."""
    told = [result for result in results if result.predictions or result.per_class]
    told.sort(key=lambda result: result.untrained)
    headings = table.table_heading(told)
    return [_entry(result, matrix_title(result, headings[result.measure])) for result in told]


def count_predictions(found: Predictions) -> np.ndarray:
    """Return int[c, c + 1]: videos of each class by prediction, the unreadable ones last."""
    size = len(found.classes)
    matrix = np.zeros((size, size + 1), int)
    np.add.at(matrix, (found.labels, found.predictions), 1)  # -1 is the last column
    return matrix


def matrix_title(result: Result, heading: str) -> str:
    """Return what a result is of, in a few words."""
    words = " ".join(filter(None, [result.name, result.label, "untrained" * result.untrained]))
    return f"{words} ({heading})" if heading else words


def _entry(result: Result, title: str) -> Confusion:
    if not result.predictions:
        percent = table.is_fraction(result.metric)
        classes = [(k, v, table.format_number(v, percent), "") for k, v in result.per_class.items()]
        note = f"{len(classes):,} classes; predictions of single videos were not kept."
        return Confusion(title, note, None, table.Grid([], []), *_extremes(classes))
    matrix, names = count_predictions(result.predictions), result.predictions.classes.tolist()
    videos = matrix.sum(1)
    shares = np.full(matrix.shape, np.nan)
    np.divide(matrix, videos[:, None], out=shares, where=videos[:, None] > 0)
    classes = [
        (name, shares[i, i], table.format_number(shares[i, i], True), f"{videos[i]:,}")
        for i, name in enumerate(names)
        if videos[i]
    ]
    drawing = draw_matrix(title, shares[:, :-1], names)
    pairs = _pairs(matrix[:, :-1], videos, names)
    return Confusion(title, _note(matrix), drawing, pairs, *_extremes(classes))


def _note(matrix: np.ndarray) -> str:
    videos, unreadable = matrix.sum(1), matrix[:, -1].sum()
    notes = [f"{videos.sum():,} videos of {np.count_nonzero(videos):,} classes"]
    if unreadable:
        notes.append(f"{unreadable:,} unreadable count as wrong")
    if not videos.all():
        notes.append(f"{np.count_nonzero(videos == 0):,} of the classes without videos (grey)")
    return "; ".join(notes) + "."


def _pairs(matrix: np.ndarray, videos: np.ndarray, names: list[str]) -> table.Grid:
    """Return the most frequent mistakes; of equally many, those of smaller classes first."""
    wrong = [
        (-matrix[i, j], videos[i], i, j) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j
    ]
    rows = [[names[i], names[j], f"{-many} of {of}"] for many, of, i, j in sorted(wrong)[:PAIRS]]
    return table.Grid(["most frequent mistakes", "taken for", "videos"], rows)


def _extremes(classes: list[tuple[str, float, str, str]]) -> tuple[table.Grid, table.Grid]:
    """Return the best classes, best first, and the worst, worst first; none is in both."""
    rows = [[name, *texts] for name, _, *texts in sorted(classes, key=lambda row: -row[1])]
    most = min(EXTREMES, (len(rows) + 1) // 2)
    return (
        table.Grid(["best classes", "right", "videos"], rows[:most]),
        table.Grid(["worst classes", "right", "videos"], rows[most:][: -most - 1 : -1]),
    )


def draw_matrix(title: str, shares: np.ndarray, names: list[str]) -> plot.Plot:
    """Draw a confusion matrix; beyond `MOST_NAMED` classes without their names.

    Args:
      title: of the drawing.
      shares: float[c, c], of the videos of each class (a row) by prediction; NaN without any.
      names: of the classes.
    """
    size = len(names)
    named = size <= MOST_NAMED
    side = 2.6 + 0.13 * size if named else 4.6
    with matplotlib.rc_context(plot.STYLE | {"axes.grid": False, "font.size": 7}):
        figure = Figure(figsize=(side + 0.5, side), layout="compressed")
        axes = figure.add_subplot(xlabel="taken for", ylabel="class")
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#eeeeee")
        image = axes.imshow(
            shares, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none"
        )  # "none" keeps one pixel a cell in the file; the root shows rare mistakes too
        bar = figure.colorbar(image, shrink=0.6, aspect=30, format=plot.format_percent)
        bar.solids.set_rasterized(True)
        bar.set_ticks([0, 0.05, 0.25, 0.5, 1])
        if named:
            short = [n if len(n) <= LONGEST else n[: LONGEST - 1] + "…" for n in names]
            axes.set_xticks(range(size), short, rotation=90)
            axes.set_yticks(range(size), short)
        if size <= MOST_WRITTEN:
            for i, j in zip(*np.nonzero(shares > 0), strict=True):
                color = "white" if shares[i, j] > 0.4 else "#333333"
                text = f"{100 * shares[i, j]:.0f}"
                axes.text(j, i, text, ha="center", va="center", color=color)
        drawing = plot.figure_svg(figure, title)
    mean = float(np.nanmean(np.diag(shares)))
    words = f"Confusion matrix of {title}: {size} classes, {mean:.1%} right in the mean of classes"
    return plot.Plot("", drawing, words, wide=named and size > 20)
