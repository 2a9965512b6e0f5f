"""Confusion matrices and per-class accuracies of results."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from vrl_jax.report import result_table, svg_plots
from vrl_jax.report.result_files import Predictions, Result

MAX_TICK_LABELS = 50  # classes; beyond that their names do not fit along the axes
MAX_ANNOTATED = 12  # classes; beyond that percentages do not fit into the cells
MAX_PAIRS = 10  # confusions listed
MAX_EXTREMES = 8  # best and worst classes listed
MAX_NAME = 26  # letters of a class name along an axis


class Confusion(NamedTuple):
    """Per-class accuracy of one result.

    Attributes:
      title: of the result.
      note: the numbers of videos and classes.
      drawing: the confusion matrix; None where only per-class accuracies are available.
      pairs: the most frequent confusions: true class, predicted class, number of videos.
      best: the classes with the highest accuracy: name, accuracy, number of videos.
      worst: the classes with the lowest accuracy.
    """

    title: str
    note: str
    drawing: svg_plots.Plot | None
    pairs: result_table.Grid
    best: result_table.Grid
    worst: result_table.Grid


def confusion_matrices(results: list[Result]) -> list[Confusion]:
    """Return one entry per result with per-class information, untrained encoders last."""
    by_class = [result for result in results if result.predictions or result.per_class]
    by_class.sort(key=lambda result: result.untrained)
    headings = result_table.table_heading(by_class)
    return [_entry(result, matrix_title(result, headings[result.measure])) for result in by_class]


def count_predictions(predicted: Predictions) -> np.ndarray:
    """Return int[c, c + 1], videos by true and predicted class; unreadable ones come last."""
    size = len(predicted.classes)
    matrix = np.zeros((size, size + 1), int)
    np.add.at(matrix, (predicted.labels, predicted.predictions), 1)  # -1 is the last column
    return matrix


def matrix_title(result: Result, heading: str) -> str:
    """Return a short title of a result, with its protocol in parentheses."""
    words = " ".join(filter(None, [result.name, result.label, "untrained" * result.untrained]))
    return f"{words} ({heading})" if heading else words


def _entry(result: Result, title: str) -> Confusion:
    if not result.predictions:
        percent = result_table.is_fraction(result.metric)
        classes = [
            (k, v, result_table.format_number(v, percent), "") for k, v in result.per_class.items()
        ]
        note = f"{len(classes):,} classes; predictions of single videos are not available."
        return Confusion(title, note, None, result_table.Grid([], []), *_extremes(classes))
    matrix, names = count_predictions(result.predictions), result.predictions.classes.tolist()
    videos = matrix.sum(1)
    shares = np.full(matrix.shape, np.nan)
    np.divide(matrix, videos[:, None], out=shares, where=videos[:, None] > 0)
    classes = [
        (name, shares[i, i], result_table.format_number(shares[i, i], True), f"{videos[i]:,}")
        for i, name in enumerate(names)
        if videos[i]
    ]
    drawing = draw_matrix(title, shares[:, :-1], names)
    pairs = _confused_pairs(matrix[:, :-1], videos, names)
    return Confusion(title, _note(matrix), drawing, pairs, *_extremes(classes))


def _note(matrix: np.ndarray) -> str:
    videos, unreadable = matrix.sum(1), matrix[:, -1].sum()
    notes = [f"{videos.sum():,} videos of {np.count_nonzero(videos):,} classes"]
    if unreadable:
        notes.append(f"unreadable videos, counted as wrong: {unreadable:,}")
    if not videos.all():
        notes.append(f"classes without videos (grey): {np.count_nonzero(videos == 0):,}")
    return "; ".join(notes) + "."


def _confused_pairs(matrix: np.ndarray, videos: np.ndarray, names: list[str]) -> result_table.Grid:
    """Return the most frequent confusions; ties are ordered by class size, smallest first."""
    wrong = [
        (-matrix[i, j], videos[i], i, j) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j
    ]
    rows = [
        [names[i], names[j], f"{-count} of {total}"]
        for count, total, i, j in sorted(wrong)[:MAX_PAIRS]
    ]
    return result_table.Grid(["most frequent confusions", "predicted as", "videos"], rows)


def _extremes(
    classes: list[tuple[str, float, str, str]],
) -> tuple[result_table.Grid, result_table.Grid]:
    """Return the best classes, best first, and the worst, worst first, without overlap."""
    rows = [[name, *texts] for name, _, *texts in sorted(classes, key=lambda row: -row[1])]
    count = min(MAX_EXTREMES, (len(rows) + 1) // 2)
    return (
        result_table.Grid(["best classes", "accuracy", "videos"], rows[:count]),
        result_table.Grid(["worst classes", "accuracy", "videos"], rows[count:][: -count - 1 : -1]),
    )


def draw_matrix(title: str, shares: np.ndarray, names: list[str]) -> svg_plots.Plot:
    """Draw a confusion matrix, with class names up to `MAX_TICK_LABELS` classes.

    Args:
      title: of the drawing.
      shares: float[c, c], the share of each true class (a row) by prediction; NaN in rows of
        classes without videos.
      names: of the classes.
    """
    size = len(names)
    labelled = size <= MAX_TICK_LABELS
    side = 2.6 + 0.13 * size if labelled else 4.6
    with matplotlib.rc_context(svg_plots.STYLE | {"axes.grid": False, "font.size": 7}):
        figure = Figure(figsize=(side + 0.5, side), layout="compressed")
        axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#eeeeee")
        image = axes.imshow(
            shares, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none"
        )  # "none" stores one pixel per cell; the square root makes rare confusions visible
        bar = figure.colorbar(image, shrink=0.6, aspect=30, format=svg_plots.format_percent)
        bar.solids.set_rasterized(True)
        bar.set_ticks([0, 0.05, 0.25, 0.5, 1])
        if labelled:
            short = [n if len(n) <= MAX_NAME else n[: MAX_NAME - 1] + "…" for n in names]
            axes.set_xticks(range(size), short, rotation=90)
            axes.set_yticks(range(size), short)
        if size <= MAX_ANNOTATED:
            for i, j in zip(*np.nonzero(shares > 0), strict=True):
                color = "white" if shares[i, j] > 0.4 else "#333333"
                text = f"{100 * shares[i, j]:.0f}"
                axes.text(j, i, text, ha="center", va="center", color=color)
        drawing = svg_plots.figure_svg(figure, title)
    mean = float(np.nanmean(np.diag(shares)))
    alt = f"Confusion matrix of {title}: {size} classes, mean class accuracy {mean:.1%}"
    return svg_plots.Plot("", drawing, alt, wide=labelled and size > 20)
