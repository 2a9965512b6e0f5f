"""RoIAlign, and frame mAP as in AVA's official evaluation."""

import collections
from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vrl_jax import check
from vrl_jax.detection.ava_boxes import Boxes

MIN_IOU = 0.5  # of a predicted box with an annotated one


def roi_align(
    feature_map: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    *,
    size: int = 7,
    sampling_ratio: int = 2,
) -> Float[Array, "n {size} {size} c"]:
    """Return a feature map sampled on a grid in each box (RoIAlign, arXiv:1703.06870).

    A cell is the mean of `sampling_ratio` x `sampling_ratio` evenly spaced points, interpolated
    bilinearly between pixel centres ("aligned": pixel i has its centre at i + 1/2). The border is
    replicated up to half a pixel outside the map; beyond that the map is 0.

    Args:
      feature_map: of one image.
      boxes: left, top, right, bottom relative to the map's width and height.
      size: cells along each side of a box.
      sampling_ratio: points along each side of a cell.
    """
    check.at_least(1, size=size, sampling_ratio=sampling_ratio)
    height, width, _ = feature_map.shape

    def weigh(start: Array, stop: Array, pixels: int) -> Float[Array, "n _ pixels"]:
        """Return the weight of each pixel of a row (or column) in each cell."""
        points = (jnp.arange(size * sampling_ratio) + 0.5) / (size * sampling_ratio)
        x = (start[:, None] + (stop - start)[:, None] * points) * pixels - 0.5
        inside = (x >= -1) & (x <= pixels)
        distance = abs(jnp.clip(x, 0, pixels - 1)[..., None] - jnp.arange(pixels))
        weights = jnp.maximum(0, 1 - distance) * inside[..., None]
        return weights.reshape(len(boxes), size, sampling_ratio, pixels).mean(2)

    left, top, right, bottom = boxes.T
    down, across = weigh(top, bottom, height), weigh(left, right, width)
    return jnp.einsum("nyh,nxw,hwc->nyxc", down, across, feature_map, precision="highest")


class FrameMeanAP(NamedTuple):
    """Frame mAP.

    Attributes:
      value: mean average precision; NaN without annotations.
      per_action: average precision of each annotated action.
    """

    value: float
    per_action: dict[int, float]


def frame_mean_ap(
    truth: Boxes,
    predictions: Boxes,
    actions: Collection[int],
    *,
    excluded: Collection[tuple[str, float]] = (),
    capacity: int = 0,
) -> FrameMeanAP:
    """Return the mean average precision over key frames, as in AVA's official evaluation.

    Predictions of an action are matched in order of their scores. One is a true positive if the
    annotated box of that action and key frame with the largest IoU has IoU ≥ 0.5 and was not
    matched before. Average precision is the area under the interpolated precision-recall curve.
    Actions without annotations are left out.

    Args:
      truth: annotations.
      predictions: scored boxes; ties are in listed order.
      actions: numbers of the evaluated actions; boxes of others are ignored.
      excluded: key frames to ignore.
      capacity: maximum number of predictions per key frame, highest scores of all actions first; 0
        for no limit. The official script has 50 since 2018, most repositories 0.
    """
    check.at_least(0, capacity=capacity)
    truth, predictions = (_select(rows, actions, set(excluded)) for rows in (truth, predictions))
    if capacity:
        predictions = _limit_per_frame(predictions, capacity)
    per_action = {
        int(action): _average_precision(
            truth.take(truth.action == action), predictions.take(predictions.action == action)
        )
        for action in sorted(set(truth.action.tolist()))
    }
    value = float(np.mean(list(per_action.values()))) if per_action else float("nan")
    return FrameMeanAP(value, per_action)


def box_iou(box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    """Return the intersection over union of a box with others; 0 where both have no area."""
    corner, opposite = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(opposite - corner, 0), axis=1)
    union = _area(box[None]) + _area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def _select(rows: Boxes, actions: Collection[int], excluded: set[tuple[str, float]]) -> Boxes:
    return rows.take(np.isin(rows.action, list(actions))).without(excluded)


def _limit_per_frame(rows: Boxes, capacity: int) -> Boxes:
    """Return the rows with the highest scores of each key frame, in their order."""
    counts, mask = collections.Counter(), np.zeros(len(rows.score), bool)
    keys = rows.keys()
    for number in np.argsort(-rows.score, kind="stable").tolist():
        mask[number] = counts[keys[number]] < capacity
        counts[keys[number]] += 1
    return rows.take(mask)


def _average_precision(truth: Boxes, predictions: Boxes) -> float:
    """Return the area under the precision-recall curve of one action."""
    predictions = predictions.take(np.argsort(-predictions.score, kind="stable"))
    hits = np.cumsum(_match(truth, predictions))
    recall = np.concatenate([[0], hits / len(truth.box)])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * best).sum())


def _match(truth: Boxes, predictions: Boxes) -> Bool[np.ndarray, "n"]:
    """Return which predictions, ordered by score, are true positives."""
    rows_by_key = collections.defaultdict(list)
    for row, key in enumerate(truth.keys()):
        rows_by_key[key].append(row)
    hits, matched = np.zeros(len(predictions.box), bool), set()
    for number, key in enumerate(predictions.keys()):
        if rows := rows_by_key.get(key):
            iou = box_iou(predictions.box[number], truth.box[rows])
            best = int(iou.argmax())
            hits[number] = iou[best] >= MIN_IOU and rows[best] not in matched
            if hits[number]:
                matched.add(rows[best])
    return hits
