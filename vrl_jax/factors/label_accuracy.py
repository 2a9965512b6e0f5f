"""Accuracies of every label on views of the test videos: order, baselines, SCUBA and SCUFO."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from vrl_jax import check
from vrl_jax.factors import frame_order, scuba
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.probes.attentive_probe import AttentiveProbe
from vrl_jax.probes.bootstrap import describe_interval
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.result_files import Result

BACKGROUNDS = {"scuba": "sinusoidal stripes", "scuba-stills": "frames of other classes"}
PROBED = ("order", *BACKGROUNDS, "conflict")  # prefixes of the views that a probe is tested on


@dataclass(frozen=True)
class FactorConfig:
    """Evaluation of static and dynamic factors.

    Attributes:
      permutations: number of random frame orders of the test clips, the same for all clips.
      threshold: correlation above which a channel is static or dynamic.
      radius: distance from 1 within which an eigenvalue is static.
      ridge: regularisation of the operators, see `koopman.fit`.
      seed: of permutations, styles and backgrounds.
      group: label for leave-one-group-out evaluation on the test videos, such as the person; ""
        trains on the training videos and tests on the test videos.
      cluster: see `ProbeSuite`.
      segments: of a clip, for a pixel baseline that keeps the order of motion; 0 for none.
      conflict: with masks, also test on clips with a second, still foreground of another video.
      intervals: add a 95 % interval to every accuracy, by a bootstrap over the videos that share
        the label `cluster` or `group`, or else over single videos.
      linear: settings of all linear probes, also of the pixel baselines.
      attentive: settings of the attentive probe of every layer; no steps for none.
    """

    permutations: int = 3
    threshold: float = 0.5
    radius: float = 0.1
    ridge: float = 1e-3
    seed: int = 0
    group: str = ""
    cluster: str = ""
    segments: int = 0
    conflict: bool = False
    intervals: bool = False
    linear: LinearProbe = LinearProbe()
    attentive: AttentiveProbe = AttentiveProbe()

    def __post_init__(self) -> None:
        check.at_least(1, permutations=self.permutations)
        check.positive(radius=self.radius, ridge=self.ridge)
        check.at_least(0, seed=self.seed, segments=self.segments)
        check.fraction(threshold=self.threshold)


def measure_direction(train: ViewFeatures, test: ViewFeatures, config: FactorConfig) -> Result:
    """Return the result on the arrow of time."""
    correct = frame_order.arrow_of_time(train, test, group=config.group, settings=config.linear)
    return {
        "name": "arrow/forward-backward",
        "label": "direction",
        "value": float(correct.mean()),
        "metric": "top-1 accuracy",
        "chance": 0.5,
        **describe_interval(correct.mean(0), _clusters(test, config)),
        "per_class": {"forward": float(correct[0].mean()), "backward": float(correct[1].mean())},
    }


def measure_label(
    train: ViewFeatures,
    test: ViewFeatures,
    label: str,
    classes: tuple[str, ...],
    config: FactorConfig,
) -> list[Result]:
    """Return the results of one label: order, tokens, baselines, parts, SCUBA and SCUFO."""
    labels, clusters = test.labels[label], _clusters(test, config)

    def predict(train_view: str, views: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return the predictions of a probe of `train_view` by view."""
        return frame_order.predict_views(
            train,
            test,
            label,
            len(classes),
            views,
            train_view=train_view,
            group=config.group,
            cluster=config.cluster,
            settings=config.linear,
        )

    def summarize_own(name: str) -> dict[str, Any]:
        """Return the accuracy of a probe that is trained and tested on one view."""
        correct = predict(name, (name,))[name] == labels
        return frame_order.summarize_accuracy(correct, labels, classes, clusters)

    views = tuple(view for view in test.views if view.partition("/")[0] in PROBED)
    predictions = predict("order/ordered", views)
    correct = {view: predicted == labels for view, predicted in predictions.items()}
    results = frame_order.compare_orders(strip_prefix("order", correct), labels, classes, clusters)
    if "tokens/ordered" in test.views:
        predicted = frame_order.predict_attentive(
            train, test, label, len(classes), group=config.group, settings=config.attentive
        )
        summary = frame_order.summarize_accuracy(predicted == labels, labels, classes, clusters)
        results.insert(1, {"name": "attentive/ordered", **summary})  # beside the linear probe
    for name in [view for view in test.views if view.startswith("floor/")]:
        results.append({"name": name, **summarize_own(name)})
    for name in [view for view in test.views if view.startswith("part/")]:
        results.append({**summarize_own(name), "name": f"leakage/{name.removeprefix('part/')}"})
    mask = has_mask(test)
    among = None if clusters is None else clusters[mask]
    for name, background in BACKGROUNDS.items() if mask.any() else ():
        details = {"background": background, "videos": int(mask.sum())}
        masked = {view: each[mask] for view, each in strip_prefix(name, correct).items()}
        for result in _contrast(masked, labels[mask], classes, among):
            results.append({**result, **details, "name": f"{name}/{result['name']}"})
    if mask.any() and "conflict/moving" in predictions:
        still = labels[scuba.draw_dissimilar(test.labels, config.seed)]
        predicted = predictions["conflict/moving"][mask]
        for name, own in (("moving", labels[mask]), ("still", still[mask])):
            share = frame_order.summarize_accuracy(predicted == own, own, classes, among)
            results.append({"name": f"conflict/{name}", **share, "videos": int(mask.sum())})
    return [{"label": label, **result} for result in results]


def has_mask(test: ViewFeatures) -> Bool[np.ndarray, "n"]:
    """Return for which videos a mask marks any foreground."""
    return test.views.get("mask/share", np.zeros((len(test.unreadable), 1)))[:, 0] > 0


def strip_prefix(prefix: str, views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the views with a prefix, under names without it."""
    return {
        view.removeprefix(f"{prefix}/"): array
        for view, array in views.items()
        if view.startswith(f"{prefix}/")
    }


def _clusters(test: ViewFeatures, config: FactorConfig) -> Int[np.ndarray, "n"] | None:
    """Return the groups of videos that intervals resample; None where there are no intervals."""
    if not config.intervals:
        return None
    label = config.cluster or config.group
    return test.labels[label] if label else np.arange(len(test.unreadable))


def _contrast(
    correct: Mapping[str, np.ndarray],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
    clusters: Int[np.ndarray, "n"] | None,
) -> list[Result]:
    """Return accuracies on SCUBA and SCUFO, and contrasted accuracy, of videos with a mask.

    Contrasted: correct on SCUBA and wrong on SCUFO. It is 0 for a constant prediction, which is
    correct on both or on neither.
    """
    moving, frozen = correct["scuba"], correct["scufo"]
    by_name = {"scuba": moving, "scufo": frozen, "contrasted": moving & ~frozen}
    results = [
        {"name": name, **frame_order.summarize_accuracy(each, labels, classes, clusters)}
        for name, each in by_name.items()
    ]
    results[-1] |= {"metric": "contrasted accuracy", "chance": 0.0}
    return results
