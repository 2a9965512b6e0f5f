from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.report.conftest import made, predictions, result
from vrl_jax.report import result_files, significance


def load(arrays, path="p.npz"):
    return result_files.Predictions(Path(path), **arrays)


def shuffled(arrays, rng, n):
    """Some of the videos, in another order."""
    chosen = rng.permutation(len(arrays["ids"]))[:n]
    return {k: v if k == "classes" else v[chosen] for k, v in arrays.items()}


@pytest.mark.parametrize(
    ("one", "other"), [(0, 0), (0, 1), (3, 3), (1, 9), (12, 5), (164, 312), (900, 1010)]
)
def test_mcnemar_is_the_binomial_test_of_disagreements(one, other):
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert significance.mcnemar_p(one, other) == pytest.approx(expected, rel=1e-9)
    assert significance.mcnemar_p(other, one) == significance.mcnemar_p(one, other)


def test_mcnemar_of_many_videos_is_a_number():
    assert 0 < significance.mcnemar_p(9800, 10200) < 0.01
    assert significance.mcnemar_p(2000, 9000) == pytest.approx(0, abs=1e-300)


def two(rng):
    """Two runs that saw some videos in common, in orders of their own."""
    first = predictions(rng)
    other = first | {"predictions": np.roll(first["predictions"], 1)}
    return shuffled(first, rng, 150), shuffled(other, rng, 170)


def test_videos_are_matched_by_id(rng):
    first, other = two(rng)
    both = significance.pair_predictions(load(first), load(other))
    by_id = {
        i: (label, guess)
        for i, label, guess in zip(first["ids"], first["labels"], first["predictions"], strict=True)
    }
    rights = []
    for i, label, guess in zip(other["ids"], other["labels"], other["predictions"], strict=True):
        if i in by_id and guess >= 0 and by_id[i][1] >= 0:
            rights.append((label, by_id[i][1] == label, guess == label))
    assert 80 < len(rights) == len(both.labels)
    assert sorted(rights) == sorted(zip(both.labels, both.first, both.other, strict=True))
    b = sum(one and not two for _, one, two in rights)
    c = sum(two and not one for _, one, two in rights)
    assert both.p == pytest.approx(binomtest(b, b + c).pvalue)
    change, videos = significance.class_differences(both)
    for k in range(3):
        own = [(one, two) for label, one, two in rights if label == k]
        assert videos[k] == len(own)
        gained = sum(two for _, two in own) - sum(one for one, _ in own)
        assert change[k] == pytest.approx(gained / len(own))


def test_videos_named_twice_are_left_out(rng):
    first = predictions(rng, 50)
    other = first | {"ids": first["ids"].copy()}
    other["ids"][0] = other["ids"][1]
    ids = set(first["ids"][2:][first["predictions"][2:] >= 0])
    assert len(significance.pair_predictions(load(first), load(other)).labels) == len(ids)


def test_disagreement_on_the_truth_is_told_with_the_files(rng):
    first = predictions(rng)
    other = first | {"labels": (first["labels"] + 1) % 3}
    with pytest.raises(ValueError, match=r"a\.npz and b\.npz have different labels for video\d+"):
        significance.pair_predictions(load(first, "a.npz"), load(other, "b.npz"))
    other = first | {"classes": first["classes"][::-1]}
    with pytest.raises(ValueError, match=r"a\.npz and b\.npz have different classes"):
        significance.pair_predictions(load(first, "a.npz"), load(other, "b.npz"))
    other = first | {"ids": np.char.add("x", first["ids"])}
    results = [
        made(result("linear", "static", 0.5), run, load(arrays, f"{run}.npz"))
        for run, arrays in (("a", first), ("b", other))
    ]
    (contest,) = significance.compare_runs(
        results
    )  # one run without a common video leaves the others be
    assert contest.grid.rows == [["b", "0", "—", "—", "—", "—", "—"]] and not contest.plots


def test_runs_meet_the_first_one_in_one_protocol_and_data_set_alone(rng):
    first, other = two(rng)
    content = result("linear", "static", 0.5)
    elsewhere = content | {"data": {"test": "other"}}
    longer = content | {"protocol": content["protocol"] | {"frames": 32}}
    untrained = content | {"model": {"init": "untrained"}}
    results = [
        made(content, "a", load(first)),
        made(content, "b", load(other)),
        made(content, "c", load(first)),
        *(made(odd, "d", load(other)) for odd in (elsewhere, longer, untrained)),
        made(content | {"label": "dynamic"}, "e", load(other)),
        made(content | {"name": "knn"}, "f", load(other)),
        made(content | {"name": "order/reversed"}, "g", load(other)),
        made(content, "h"),
    ]
    (contest,) = significance.compare_runs(results)
    assert contest.title.startswith("linear static") and contest.title.endswith("against a")
    assert [row[0] for row in contest.grid.rows] == ["b", "c"]
    both = significance.pair_predictions(load(first), load(other))
    only = (both.other & ~both.first).sum(), (both.first & ~both.other).sum()
    assert contest.grid.rows[0] == [
        "b",
        f"{len(both.labels)}",
        f"{100 * both.other.mean():.1f} %",
        f"{100 * both.first.mean():.1f} %",
        *map(str, only),
        f"{both.p:.2g}" if both.p >= significance.MIN_P else "below 1e-06",
    ]
    assert contest.grid.rows[1][4:] == ["0", "0", "1"]
    assert significance.compare_runs(results[3:]) == []


def test_plot_shows_the_largest_gains_and_losses_in_order():
    names = np.array([f"class {i}" for i in range(40)])
    labels = np.repeat(np.arange(40), 10)
    first = np.tile(np.arange(10) < 5, 40)
    other = np.arange(10) < np.repeat(np.arange(40) % 10, 10).reshape(40, 10)
    both = significance.PairedPredictions(labels, first, other.ravel(), names)
    drawing = significance.draw_differences("b", both)
    assert drawing.title == "b: 16 classes gained, 20 lost"
    points = [int(p) for p in drawing.alt.split("in points: ")[1].replace(",", "").split()[2::3]]
    gained = sorted((10 * (i % 10) - 50 for i in range(40)), reverse=True)
    assert points == gained[: significance.MAX_CLASSES] + gained[-significance.MAX_CLASSES :]
    assert "class 9 (10)" in drawing.svg and "class 5 (10)" not in drawing.svg


def test_plot_leaves_out_classes_that_stay_the_same():
    names, labels = np.array(["up", "same", "down"]), np.array([0, 1, 2])
    first, other = np.array([False, True, True]), np.array([True, True, False])
    drawing = significance.draw_differences(
        "b", significance.PairedPredictions(labels, first, other, names)
    )
    assert drawing.alt.endswith("in points: up +100, down -100") and "same" not in drawing.svg
    still = significance.draw_differences(
        "b", significance.PairedPredictions(labels, first, first, names)
    )
    assert still.title == "b: 0 classes gained, 0 lost"
