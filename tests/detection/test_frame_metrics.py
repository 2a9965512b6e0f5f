import functools
from collections import defaultdict

import jax
import numpy as np
import pytest

from vrl_jax.detection.ava_boxes import Boxes
from vrl_jax.detection.frame_metrics import box_iou, frame_mean_ap, roi_align


def align(feature_map, boxes, size, ratio):
    """RoIAlign from its definition: sampled points, each from its four neighbours."""
    height, width, channels = feature_map.shape
    out = np.zeros((len(boxes), size, size, channels))
    for n, (left, top, right, bottom) in enumerate(np.asarray(boxes, float)):
        for row in range(size):
            for column in range(size):
                for i in range(ratio):
                    for j in range(ratio):
                        down = top + (bottom - top) / size * (row + (i + 0.5) / ratio)
                        across = left + (right - left) / size * (column + (j + 0.5) / ratio)
                        point = read(feature_map, down * height - 0.5, across * width - 0.5)
                        out[n, row, column] += point / ratio**2
    return out


def read(feature_map, y, x):
    height, width, _ = feature_map.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    upper = (1 - x + x0) * feature_map[y0, x0] + (x - x0) * feature_map[y0, x1]
    lower = (1 - x + x0) * feature_map[y1, x0] + (x - x0) * feature_map[y1, x1]
    return (1 - y + y0) * upper + (y - y0) * lower


@pytest.mark.parametrize("shape, size, ratio", [((5, 8, 3), 7, 2), ((6, 4, 2), 3, 1)])
def test_roi_align_is_its_definition(rng, shape, size, ratio):
    feature_map = rng.normal(size=shape).astype(np.float32)
    corners = rng.uniform(-0.3, 0.9, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.01, 0.6, (12, 2))], 1)
    boxes = np.concatenate([boxes, [[0, 0, 1, 1], [0.3, 0.3, 0.3, 0.3]]]).astype(np.float32)
    expected = align(feature_map, boxes, size, ratio)
    compiled = jax.jit(lambda m, b: roi_align(m, b, size=size, sampling_ratio=ratio))
    np.testing.assert_allclose(compiled(feature_map, boxes), expected, atol=3e-5)
    assert expected.std() > 0.1 and (expected == 0).any()
    several = np.stack([feature_map, 2 * feature_map])
    both = jax.jit(jax.vmap(compiled))(several, np.stack([boxes, boxes[::-1]]))
    np.testing.assert_allclose(np.asarray(both)[1], 2 * expected[::-1], atol=6e-5)


def test_roi_align_of_the_whole_map_on_its_own_grid_is_the_map(rng):
    feature_map = rng.normal(size=(7, 7, 2)).astype(np.float32)
    align_points = jax.jit(functools.partial(roi_align, sampling_ratio=1))
    (got,) = np.asarray(align_points(feature_map, np.array([[0, 0, 1, 1]], np.float32)))
    np.testing.assert_allclose(got, feature_map, atol=1e-5)


def test_roi_align_has_the_gradients_of_differences(rng):
    feature_map = rng.normal(size=(5, 6, 2))
    boxes = np.array([[0.11, 0.23, 0.71, 0.94], [0.31, 0.07, 0.52, 0.48]])
    weights = rng.normal(size=(2, 3, 3, 2))

    def loss(feature_map, boxes):
        return (roi_align(feature_map, boxes, size=3) * weights).sum()

    args = feature_map.astype(np.float32), boxes.astype(np.float32)
    by_map, by_box = jax.device_get(jax.jit(jax.grad(loss, (0, 1)))(*args))
    for index in [(0, 0, 0), (2, 3, 1), (4, 5, 0)]:
        moved = feature_map.copy()
        moved[index] += 1
        change = (align(moved, boxes, 3, 2) - align(feature_map, boxes, 3, 2)) * weights
        assert by_map[index] == pytest.approx(change.sum(), abs=1e-4)
    for index in np.ndindex(2, 4):
        ends = []
        for sign in (1, -1):
            moved = boxes.copy()
            moved[index] += sign * 1e-5
            ends.append((align(feature_map, moved, 3, 2) * weights).sum())
        assert by_box[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-3)
    assert abs(by_box).min() > 1e-3


def rows(*lines):
    """Return boxes of lines (video, time, left, right, action, score), all of full height."""
    video, time, left, right, action, score = zip(*lines, strict=True) if lines else [()] * 6
    box = np.stack([left, np.zeros(len(left)), right, np.ones(len(left))], 1)
    number = np.array(action, int)
    return Boxes(
        np.array(video, str),
        np.array(time, float),
        box.astype(float),
        number,
        0 * number,
        np.array(score, float),
    )


TRUTH = rows(
    ("a", 1, 0.0, 0.4, 3, 1), ("a", 1, 0.6, 1.0, 3, 1), ("b", 1, 0.0, 0.5, 3, 1),
    ("b", 2, 0.0, 0.5, 5, 1),
)  # fmt: skip


def test_average_precision_by_hand():
    """Right, wrong (found already), wrong (too small), right, of three boxes; action 5 not found.

    Precision at the two hits is 1/1 and 2/4: 1/3 · 1 + 1/3 · 1/2 + 1/3 · 0.
    """
    predictions = rows(
        ("b", 1, 0.0, 0.5, 3, 0.6),
        ("a", 1, 0.0, 0.4, 3, 0.9),
        ("a", 1, 0.05, 0.4, 3, 0.8),
        ("a", 1, 0.6, 0.79, 3, 0.7),
        ("b", 2, 0.0, 0.5, 7, 0.9),
    )
    got = frame_mean_ap(TRUTH, predictions, (3, 5, 7))
    assert got.per_action == pytest.approx({3: 1 / 2, 5: 0}) and got.value == pytest.approx(1 / 4)
    assert frame_mean_ap(TRUTH, predictions, (3,)).value == pytest.approx(1 / 2)
    assert frame_mean_ap(TRUTH, predictions.take(predictions.action == 0), (3, 5)).value == 0
    assert np.isnan(frame_mean_ap(TRUTH, predictions, (7,)).value)


def test_precision_is_the_best_at_any_greater_recall():
    """Wrong, right, right, right: 3/4 holds for all recalls."""
    predictions = rows(
        ("b", 2, 0.0, 0.5, 3, 0.9),
        ("a", 1, 0.0, 0.4, 3, 0.8),
        ("a", 1, 0.6, 1.0, 3, 0.7),
        ("b", 1, 0.0, 0.5, 3, 0.6),
    )
    assert frame_mean_ap(TRUTH, predictions, (3,)).value == pytest.approx(3 / 4)


def test_half_an_overlap_is_enough_and_excluded_frames_do_not_count():
    predictions = rows(("b", 2, 0.0, 0.25, 5, 0.5), ("a", 9, 0.0, 0.25, 5, 0.9))
    assert frame_mean_ap(TRUTH, predictions, (5,)).value == pytest.approx(1 / 2)
    assert frame_mean_ap(TRUTH, predictions, (5,), excluded={("a", 9.0)}).value == 1
    assert np.isnan(frame_mean_ap(TRUTH, predictions, (5,), excluded={("b", 2.0)}).value)
    thinner = predictions._replace(box=predictions.box - [0, 0, 0.01, 0])
    assert frame_mean_ap(TRUTH, thinner, (5,)).value == 0


def test_a_key_frame_has_a_capacity():
    predictions = rows(
        ("a", 1, 0.0, 0.4, 3, 0.5),
        ("a", 1, 0.6, 1.0, 3, 0.9),
        ("a", 1, 0.6, 1.0, 5, 0.7),
        ("b", 1, 0.0, 0.5, 3, 0.2),
    )
    assert frame_mean_ap(TRUTH, predictions, (3, 5)).per_action[3] == pytest.approx(1)
    limited = frame_mean_ap(TRUTH, predictions, (3, 5), capacity=2)
    assert limited.per_action[3] == pytest.approx(2 / 3)


def slow_map(truth, predictions, actions, excluded):
    """The same, box by box; every recall's precision is looked for anew."""
    values = []
    for action in actions:
        boxes = defaultdict(list)
        for video, time, box, of, _, _ in zip(*truth, strict=True):
            if of == action and (video, time) not in excluded:
                boxes[video, time].append([box, False])
        total = sum(map(len, boxes.values()))
        if not total:
            continue
        hits, precisions = 0, []
        order = sorted(range(len(predictions.score)), key=lambda n: -predictions.score[n])
        count = 0
        for n in order:
            key = (predictions.video[n], predictions.time[n])
            if predictions.action[n] != action or key in excluded:
                continue
            count += 1
            best = max(boxes[key], key=lambda b, n=n: share(predictions.box[n], b[0]), default=None)
            if best and share(predictions.box[n], best[0]) >= 0.5 and not best[1]:
                best[1] = True
                hits += 1
            precisions.append((hits, hits / count))
        values.append(
            sum(
                max([p for r, p in precisions if r >= required], default=0)
                for required in range(1, total + 1)
            )
            / total
        )
    return np.mean(values)


def share(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return across * down / (sum(areas) - across * down)


@pytest.mark.parametrize("count, frames", [(60, 5), (25, 2)])
def test_frame_map_as_by_a_slow_loop(rng, count, frames):
    def draw(count, noise):
        picked = rng.integers(0, 4, count)
        corners = np.array([[0.1, 0.1], [0.3, 0.2], [0.5, 0.5], [0.2, 0.6]])[picked]
        box = np.concatenate([corners, corners + 0.4], 1) + rng.normal(0, noise, (count, 4))
        return Boxes(
            np.array(["u", "v"])[rng.integers(0, 2, count)],
            rng.integers(0, frames, count).astype(float),
            box,
            rng.integers(1, 5, count),
            np.zeros(count, int),
            rng.random(count),
        )

    truth, predictions, excluded = draw(count, 0.02), draw(3 * count, 0.06), {("u", 1.0)}
    got = frame_mean_ap(truth, predictions, (1, 2, 4, 9), excluded=excluded)
    assert got.value == pytest.approx(slow_map(truth, predictions, (1, 2, 4, 9), excluded))
    assert 0.05 < got.value < 0.95 and set(got.per_action) == {1, 2, 4}
    np.testing.assert_allclose(
        box_iou(predictions.box[0], truth.box),
        [share(predictions.box[0], box) for box in truth.box],
    )
