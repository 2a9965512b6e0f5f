"""Does an encoder care in which order the frames come? Orders of a clip, and what is then right.

A probe that learned from ordered clips is asked about the same test clips with their frames in
other orders; "Only Time Can Tell" (Sevilla-Lara et al., WACV 2021, arXiv 1907.08340) shows that a
few classes carry the drop, so every number is also given per class.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vrl_jax import check
from vrl_jax.probes import linear_probe
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.results import UNREADABLE, chance_level

Views = Mapping[str, Float[np.ndarray, "n _"]]


class ViewFeatures(NamedTuple):
    """Features of a source's videos, seen in several ways.

    Attributes:
      views: one row a video, by the name of what was encoded.
      labels: class numbers by label name.
      unreadable: whether the video could not be read.
    """

    views: Views
    labels: Mapping[str, Int[np.ndarray, "n"]]
    unreadable: Bool[np.ndarray, "n"]


def draw_permutations(frames: int, count: int, seed: int) -> Int[np.ndarray, "p t"]:
    """Return that many different orders of the frames, none of them forward or backward.

    Raises:
      ValueError: there are not so many.
    """
    if count > math.factorial(min(frames, 20)) - 2:
        raise ValueError(f"there are no {count} ways to shuffle {frames} frames: use longer clips")
    rng = np.random.default_rng(seed)
    plain = tuple(range(frames))
    found = {plain: None, plain[::-1]: None}
    while len(found) < count + 2:
        found[tuple(rng.permutation(frames).tolist())] = None
    return np.array(list(found)[2:])


def frame_orders(frames: int, shuffles: int, seed: int) -> dict[str, Int[np.ndarray, "t"]]:
    """Return by name which frame is shown when; "held" shows every second one twice."""
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
    """Show the middle frame all the time."""
    frames = clips.shape[1]
    return clips[:, np.full(frames, frames // 2)]


def predict_views(
    train: ViewFeatures,
    test: ViewFeatures,
    label: str,
    classes: int,
    views: tuple[str, ...],
    *,
    learned: str,
    group: str,
    settings: LinearProbe,
) -> dict[str, Int[np.ndarray, "n"]]:
    """Return what a probe that learned from one view says of the test videos in other views.

    It says `UNREADABLE` of a video that could not be read.

    Args:
      train: what is learned from.
      test: what is asked about; with a group, also what is learned from.
      label: which of the labels.
      classes: how many there are.
      views: what is asked about.
      learned: the view that is learned from.
      group: see `folds`.
      settings: of the probe.
    """
    said = {view: np.full(len(test.unreadable), UNREADABLE) for view in views}
    for members, asked in probe_folds(train, test, group):
        found = linear_probe.fit_probe(
            train.views[learned],
            train.labels[label],
            np.concatenate([test.views[view][asked] for view in views]),
            np.tile(test.labels[label][asked], len(views)),
            num_classes=classes,
            settings=settings,
            groups=train.labels[group] if group else None,
            mask=members,
        )
        for view, part in zip(views, np.split(found.predictions, len(views)), strict=True):
            said[view][asked] = part
    return said


def arrow_of_time(
    train: ViewFeatures, test: ViewFeatures, *, group: str, settings: LinearProbe
) -> Bool[np.ndarray, "2 n"]:
    """Return of which test videos, shown forward and backward, a probe says the right direction.

    Both clips of a training video lie on the same side when the probe's settings are chosen. What
    cannot be read is wrong.
    """
    right = np.zeros((2, len(test.unreadable)), bool)
    directed = ("order/ordered", "order/reversed")
    both = np.concatenate([train.views[view] for view in directed])
    for members, asked in probe_folds(train, test, group):
        directions = np.repeat([0, 1], len(asked))
        found = linear_probe.fit_probe(
            both,
            np.repeat([0, 1], len(members)),
            np.concatenate([test.views[view][asked] for view in directed]),
            directions,
            num_classes=2,
            settings=settings,
            groups=np.tile(train.labels[group] if group else np.arange(len(members)), 2),
            mask=np.tile(members, 2),
        )
        right[:, asked] = (found.predictions == directions).reshape(2, -1)
    return right


def probe_folds(
    train: ViewFeatures, test: ViewFeatures, group: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (which rows of train to learn from, rows of test to ask about), readable ones alone.

    With a group, each of its values is asked about once, and all others are learned from.
    """
    learn, ask = ~train.unreadable, np.flatnonzero(~test.unreadable)
    if not group:
        yield learn, ask
        return
    if train is not test:
        raise ValueError(f"group {group!r} is left out of the test videos: train must be test")
    groups = test.labels[group]
    check.at_least(3, **{f"the number of {group}s": len(np.unique(groups[ask]))})
    for value in np.unique(groups[ask]):
        yield learn & (groups != value), ask[groups[ask] == value]


def summarize_accuracy(
    right: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return the share that is right, that of each class that occurs, and that of a blind guess.

    A blind guess always names the most frequent class.
    """
    found = {name: right[labels == number] for number, name in enumerate(classes)}
    return {
        "value": float(right.mean()),
        "metric": "top-1 accuracy",
        "chance": chance_level(labels),
        "per_class": {name: float(part.mean()) for name, part in found.items() if len(part)},
    }


def compare_orders(
    right: Mapping[str, Bool[np.ndarray, "n"]],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Return accuracies on ordered, shuffled, reversed, frozen and held clips.

    All shuffles count as one, by the mean. A drop is from the accuracy on ordered clips.
    """
    shuffles = [found for name, found in right.items() if name.startswith("shuffled")]
    averaged = {**right, "shuffled": np.mean(shuffles, axis=0)}
    whole = summarize_accuracy(averaged["ordered"], labels, classes)
    results = [{"name": "order/ordered", **whole}]
    for name in ("shuffled", "reversed", "frozen", "held"):
        found = summarize_accuracy(averaged[name], labels, classes)
        drops = {c: whole["per_class"][c] - part for c, part in found["per_class"].items()}
        drop = whole["value"] - found["value"]
        results.append({"name": f"order/{name}", **found, "drop": drop, "drop_per_class": drops})
    return results
