import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.conftest import made, predictions, result
from vrl_jax.report import confusion_matrix, result_files

NAMES = ("circle", "square", "star", "empty")


def predicted(labels, guesses, names=NAMES):
    ids = np.array([f"v{i}" for i in range(len(labels))])
    return result_files.Predictions(
        Path("p.npz"), ids, np.array(labels), np.array(guesses), np.array(names)
    )


@pytest.mark.parametrize("size", [3, 7])
def test_count_is_videos_by_class_and_prediction(rng, size):
    labels, guesses = rng.integers(0, size, 300), rng.integers(-1, size, 300)
    matrix = confusion_matrix.count_predictions(
        predicted(labels, guesses, [str(i) for i in range(size)])
    )
    expected = np.zeros((size, size + 1), int)
    for label, guess in zip(labels, guesses, strict=True):
        expected[label, size if guess == -1 else guess] += 1
    np.testing.assert_array_equal(matrix, expected)


def test_words_tell_mistakes_and_extremes():
    labels = [0] * 5 + [1] * 8 + [2] * 4
    guesses = [0, 0, 0, 1, 1] + [1, 0, 0, 2, 2, 2, 2, -1] + [2, 2, 2, 2]
    content = result("linear", "class", 0.5) | {"protocol": {"name": "dualvar"}}
    (one,) = confusion_matrix.confusion_matrices(
        [made(content, predictions=predicted(labels, guesses))]
    )
    assert one.title == "linear class (dualvar)"
    assert one.note == (
        "17 videos of 3 classes; unreadable videos, counted as wrong: 1; "
        "classes without videos (grey): 1."
    )
    assert one.pairs.rows == [
        ["square", "star", "4 of 8"],
        ["circle", "square", "2 of 5"],
        ["square", "circle", "2 of 8"],
    ]
    assert one.best.rows == [["star", "100.0 %", "4"], ["circle", "60.0 %", "5"]]
    assert one.worst.rows == [["square", "12.5 %", "8"]]
    assert "mean class accuracy 57.5%" in one.drawing.alt


def test_best_and_worst_never_meet(rng):
    names = [f"class {i}" for i in range(40)]
    sample = predictions(rng, 2000, names)
    stored = predicted(sample["labels"], sample["predictions"], names)
    (one,) = confusion_matrix.confusion_matrices(
        [made(result("linear", "class", 0.5), predictions=stored)]
    )
    accuracy = {}
    for i, name in enumerate(names):
        own = sample["labels"] == i
        accuracy[name] = (sample["predictions"][own] == i).mean()
    ranked = sorted(accuracy.values())
    listed = [[accuracy[row[0]] for row in part.rows] for part in (one.best, one.worst)]
    assert listed == [
        ranked[: -confusion_matrix.MAX_EXTREMES - 1 : -1],
        ranked[: confusion_matrix.MAX_EXTREMES],
    ]


@pytest.mark.parametrize("size", [8, 48, 101, 400])
def test_picture_has_a_pixel_a_cell_and_names_where_they_fit(rng, size):
    names = [f"a rather long name of some class {i:03}" for i in range(size)]
    shares = rng.dirichlet(np.full(size, 0.1), size)
    shares[3] = np.nan
    svg = confusion_matrix.draw_matrix("mine", shares, names).svg
    labelled = size <= confusion_matrix.MAX_TICK_LABELS
    assert svg.count("a rather long name of som…") == (2 * size if labelled else 0)
    annotated = [f">{100 * shares[i, i]:.0f}<" in svg for i in range(8) if i != 3]
    assert all(annotated) or size > confusion_matrix.MAX_ANNOTATED
    pictures = re.findall(r"base64,\s*([^\"]+)", svg)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures]
    assert (size, size) in sizes
    assert len(svg) < 400_000


def test_classes_without_predictions_are_told_in_words_and_untrained_ones_last():
    bare = result("linear", "class", 0.5) | {"per_class": {"a": 0.25, "b": 0.75, "c": 0.5}}
    bare["model"] = {"encoder": "Tiny", "init": "untrained"}
    whole = made(result("knn", "class", 0.5), predictions=predicted([0, 1], [0, 0]))
    first, last = confusion_matrix.confusion_matrices([made(bare), whole])
    assert (first.title, last.title) == ("knn class", "linear class untrained")
    assert last.drawing is None and last.pairs.rows == []
    assert [row[:2] for row in last.best.rows] == [["b", "75.0 %"], ["c", "50.0 %"]]
    assert [row[:2] for row in last.worst.rows] == [["a", "25.0 %"]]
