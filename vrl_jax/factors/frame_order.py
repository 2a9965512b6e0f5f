"""Sensitivity of an encoder to frame order.

A probe is trained on ordered clips and tested on the test clips with their frames reordered. The
drop in accuracy is concentrated in few classes ("Only Time Can Tell", Sevilla-Lara et al., WACV
2021, arXiv 1907.08340), so results also have per-class accuracies.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vrl_jax import check
from vrl_jax.probes import linear_probe
from vrl_jax.probes.attentive_probe import AttentiveProbe, fit_attentive
from vrl_jax.probes.bootstrap import describe_interval
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.result_files import UNREADABLE, chance_level

Views = Mapping[str, Float[np.ndarray, "n ..."]]


class ViewFeatures(NamedTuple):
    """Features of several views of a dataset's videos.

    Attributes:
      views: one row per video, by the name of the view; of "tokens/ordered" f32[n t s d].
      labels: class numbers by label name.
      unreadable: whether the video could not be read.
    """

    views: Views
    labels: Mapping[str, Int[np.ndarray, "n"]]
    unreadable: Bool[np.ndarray, "n"]


def draw_permutations(frames: int, count: int, seed: int) -> Int[np.ndarray, "p t"]:
    """Return `count` distinct permutations of the frames, other than forward and backward.

    Raises:
      ValueError: there are fewer permutations.
    """
    if count > math.factorial(min(frames, 20)) - 2:
        raise ValueError(
            f"{frames} frames have fewer than {count} shuffled orders: use longer clips"
        )
    rng = np.random.default_rng(seed)
    forward = tuple(range(frames))
    orders = {forward: None, forward[::-1]: None}
    while len(orders) < count + 2:
        orders[tuple(rng.permutation(frames).tolist())] = None
    return np.array(list(orders)[2:])


def frame_orders(frames: int, shuffles: int, seed: int) -> dict[str, Int[np.ndarray, "t"]]:
    """Return the frame indices of each order by name; "held" repeats every second frame."""
    forward = np.arange(frames)
    shuffled = draw_permutations(frames, shuffles, seed)
    return {
        "ordered": forward,
        "reversed": forward[::-1],
        "frozen": np.full(frames, frames // 2),
        "held": forward - forward % 2,
        **{f"shuffled {number}": order for number, order in enumerate(shuffled)},
    }


def freeze_clips(clips: UInt8[np.ndarray, "m t h w 3"]) -> UInt8[np.ndarray, "m t h w 3"]:
    """Repeat the middle frame of each clip for its whole length."""
    frames = clips.shape[1]
    return clips[:, np.full(frames, frames // 2)]


def predict_views(
    train: ViewFeatures,
    test: ViewFeatures,
    label: str,
    classes: int,
    views: tuple[str, ...],
    *,
    train_view: str,
    group: str,
    cluster: str = "",
    settings: LinearProbe,
) -> dict[str, Int[np.ndarray, "n"]]:
    """Train a probe on one view and return its predictions on other views of the test videos.

    The prediction for a video that could not be read is `UNREADABLE`.

    Args:
      train: features to train on.
      test: features to test on; with a group, also to train on.
      label: the label to predict.
      classes: number of classes.
      views: views of the test videos.
      train_view: the view to train on.
      group: see `probe_folds`.
      cluster: see `ProbeSuite`.
      settings: of the probe.
    """
    predictions = {view: np.full(len(test.unreadable), UNREADABLE) for view in views}
    for train_mask, rows in probe_folds(train, test, group):
        probe = linear_probe.fit_probe(
            train.views[train_view],
            train.labels[label],
            np.concatenate([test.views[view][rows] for view in views]),
            np.tile(test.labels[label][rows], len(views)),
            num_classes=classes,
            settings=settings,
            groups=train.labels[group or cluster] if group or cluster else None,
            mask=train_mask,
        )
        for view, part in zip(views, np.split(probe.predictions, len(views)), strict=True):
            predictions[view][rows] = part
    return predictions


def predict_attentive(
    train: ViewFeatures,
    test: ViewFeatures,
    label: str,
    classes: int,
    *,
    group: str,
    settings: AttentiveProbe,
) -> Int[np.ndarray, "n"]:
    """Train an attentive probe on the tokens of ordered clips and return its predictions.

    Arguments are those of `predict_views`.
    """
    predictions = np.full(len(test.unreadable), UNREADABLE)
    for train_mask, rows in probe_folds(train, test, group):
        predictions[rows] = fit_attentive(
            train.views["tokens/ordered"],
            train.labels[label],
            test.views["tokens/ordered"][rows],
            num_classes=classes,
            settings=settings,
            mask=train_mask,
        )
    return predictions


def arrow_of_time(
    train: ViewFeatures, test: ViewFeatures, *, group: str, settings: LinearProbe
) -> Bool[np.ndarray, "2 n"]:
    """Return for which test videos, forward and backward, a probe predicts the direction.

    Both clips of a training video are on the same side of the held-out split. Unreadable videos
    count as wrong.
    """
    correct = np.zeros((2, len(test.unreadable)), bool)
    directed = ("order/ordered", "order/reversed")
    both = np.concatenate([train.views[view] for view in directed])
    for train_mask, rows in probe_folds(train, test, group):
        directions = np.repeat([0, 1], len(rows))
        probe = linear_probe.fit_probe(
            both,
            np.repeat([0, 1], len(train_mask)),
            np.concatenate([test.views[view][rows] for view in directed]),
            directions,
            num_classes=2,
            settings=settings,
            groups=np.tile(train.labels[group] if group else np.arange(len(train_mask)), 2),
            mask=np.tile(train_mask, 2),
        )
        correct[:, rows] = (probe.predictions == directions).reshape(2, -1)
    return correct


def probe_folds(
    train: ViewFeatures, test: ViewFeatures, group: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (mask of training rows, indices of test rows), with readable videos only.

    With a group, each of its values is tested once, with all others as training videos.

    Raises:
      ValueError: with a group, `train` is not `test`, or there are fewer than three groups.
    """
    train_mask, rows = ~train.unreadable, np.flatnonzero(~test.unreadable)
    if not group:
        yield train_mask, rows
        return
    if train is not test:
        raise ValueError(f"group {group!r} is left out of the test videos: train must be test")
    groups = test.labels[group]
    check.at_least(3, **{f"the number of {group}s": len(np.unique(groups[rows]))})
    for value in np.unique(groups[rows]):
        yield train_mask & (groups != value), rows[groups[rows] == value]


def summarize_accuracy(
    correct: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
    clusters: Int[np.ndarray, "n"] | None = None,
) -> dict[str, Any]:
    """Return accuracy, chance level, and the accuracy of each class that occurs.

    Chance is the accuracy of always predicting the most frequent class. With `clusters` there is
    an interval as well, see `describe_interval`.
    """
    by_class = {name: correct[labels == number] for number, name in enumerate(classes)}
    return {
        "value": float(correct.mean()),
        "metric": "top-1 accuracy",
        "chance": chance_level(labels),
        **describe_interval(correct, clusters),
        "per_class": {name: float(part.mean()) for name, part in by_class.items() if len(part)},
    }


def compare_orders(
    correct: Mapping[str, Bool[np.ndarray, "n"]],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
    clusters: Int[np.ndarray, "n"] | None = None,
) -> list[dict[str, Any]]:
    """Return accuracies on ordered, shuffled, reversed, frozen and held clips.

    Shuffled is the mean over permutations. A drop is relative to the accuracy on ordered clips.
    `clusters` are those of `summarize_accuracy`.
    """
    shuffled = [array for name, array in correct.items() if name.startswith("shuffled")]
    averaged = {**correct, "shuffled": np.mean(shuffled, axis=0)}
    ordered = summarize_accuracy(averaged["ordered"], labels, classes, clusters)
    results = [{"name": "order/ordered", **ordered}]
    for name in ("shuffled", "reversed", "frozen", "held"):
        summary = summarize_accuracy(averaged[name], labels, classes, clusters)
        drops = {c: ordered["per_class"][c] - part for c, part in summary["per_class"].items()}
        drop = ordered["value"] - summary["value"]
        results.append({"name": f"order/{name}", **summary, "drop": drop, "drop_per_class": drops})
    return results
