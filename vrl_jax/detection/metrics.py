"""Actions of boxes in key frames: features of boxes, and how well actions are found."""

import collections
from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vrl_jax import check
from vrl_jax.detection.ava import Boxes

MIN_IOU = 0.5  # of a box with the true one, intersection over union


def roi_align(
    feature_map: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    *,
    size: int = 7,
    sampling_ratio: int = 2,
) -> Float[Array, "n {size} {size} c"]:
    """Return each box's part of a map, on a grid (RoIAlign of Mask R-CNN, arXiv:1703.06870).

    A cell is the mean of `sampling_ratio` x `sampling_ratio` points in it, spread evenly; the map's
    value there is interpolated linearly between the centres of its pixels ("aligned": pixel i has
    its centre at i + 1/2). Beyond these centres the border is repeated up to half a pixel outside
    the map; farther out all is 0.

    Args:
      feature_map: of one picture.
      boxes: left, top, right, bottom as shares of the map's width and height.
      size: cells of a box each way.
      sampling_ratio: points in a cell each way.
    """
    check.at_least(1, size=size, sampling_ratio=sampling_ratio)
    height, width, _ = feature_map.shape

    def weigh(start: Array, stop: Array, pixels: int) -> Float[Array, "n _ pixels"]:
        """Return what every pixel of a row (or column) weighs in each cell."""
        points = (jnp.arange(size * sampling_ratio) + 0.5) / (size * sampling_ratio)
        at = (start[:, None] + (stop - start)[:, None] * points) * pixels - 0.5
        inside = (at >= -1) & (at <= pixels)
        distance = abs(jnp.clip(at, 0, pixels - 1)[..., None] - jnp.arange(pixels))
        weights = jnp.maximum(0, 1 - distance) * inside[..., None]
        return weights.reshape(len(boxes), size, sampling_ratio, pixels).mean(2)

    left, top, right, bottom = boxes.T
    down, across = weigh(top, bottom, height), weigh(left, right, width)
    return jnp.einsum("nyh,nxw,hwc->nyxc", down, across, feature_map, precision="highest")


class FrameMap(NamedTuple):
    """What the boxes of key frames scored.

    Attributes:
      value: mean of the average precisions; nan where nothing is annotated.
      per_action: average precision of each action that is annotated.
    """

    value: float
    per_action: dict[int, float]


def frame_map(
    truth: Boxes,
    found: Boxes,
    actions: Collection[int],
    *,
    excluded: Collection[tuple[str, float]] = (),
    capacity: int = 0,
) -> FrameMap:
    """Return the mean average precision over key frames, as AVA's official evaluation has it.

    Predictions of an action, the surest first, are right if the annotated box of that action and
    key frame that they overlap most (at least by half) was not found before. Average precision is
    the area under the precision that any greater or equal recall reaches. Actions that are nowhere
    annotated are left out.

    Args:
      truth: annotations.
      found: predictions; among equally sure ones the first listed comes first.
      actions: numbers of those that count; boxes of others are left out.
      excluded: key frames that do not count.
      capacity: of a key frame's predictions only so many count, the surest of all actions; 0
        counts all. The official script has 50 since 2018, most repositories 0.
    """
    check.at_least(0, capacity=capacity)
    truth, found = (_counted(rows, actions, set(excluded)) for rows in (truth, found))
    if capacity:
        found = _surest(found, capacity)
    per_action = {
        int(action): _average_precision(
            truth.take(truth.action == action), found.take(found.action == action)
        )
        for action in sorted(set(truth.action.tolist()))
    }
    value = float(np.mean(list(per_action.values()))) if per_action else float("nan")
    return FrameMap(value, per_action)


def box_iou(box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    """Return intersection over union of a box with others; 0 where both have no area."""
    corner, opposite = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(opposite - corner, 0), axis=1)
    union = _area(box[None]) + _area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def _counted(rows: Boxes, actions: Collection[int], excluded: set[tuple[str, float]]) -> Boxes:
    return rows.take(np.isin(rows.action, list(actions))).without(excluded)


def _surest(rows: Boxes, capacity: int) -> Boxes:
    """Return the surest rows of every key frame, in their order."""
    seen, kept = collections.Counter(), np.zeros(len(rows.score), bool)
    keys = rows.keys()
    for number in np.argsort(-rows.score, kind="stable").tolist():
        kept[number] = seen[keys[number]] < capacity
        seen[keys[number]] += 1
    return rows.take(kept)


def _average_precision(truth: Boxes, found: Boxes) -> float:
    """Return the area under the precision-recall curve of one action."""
    found = found.take(np.argsort(-found.score, kind="stable"))
    hits = np.cumsum(_match(truth, found))
    recall = np.concatenate([[0], hits / len(truth.box)])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * best).sum())


def _match(truth: Boxes, found: Boxes) -> Bool[np.ndarray, "n"]:
    """Return which predictions, the surest first, find a box that none before them found."""
    places = collections.defaultdict(list)
    for number, key in enumerate(truth.keys()):
        places[key].append(number)
    hits, taken = np.zeros(len(found.box), bool), set()
    for number, key in enumerate(found.keys()):
        if key in places:
            shares = box_iou(found.box[number], truth.box[places[key]])
            best = int(shares.argmax())
            place = places[key][best]
            hits[number] = shares[best] >= MIN_IOU and place not in taken
            if hits[number]:
                taken.add(place)
    return hits
