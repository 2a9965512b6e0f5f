"""All probes of a frozen encoder on one dataset, as results with protocol, model and data.

Probes only read features, so they cannot change the encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vrl_jax import check
from vrl_jax.probes import collapse, knn, linear_probe, retrieval
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.multilabel_probe import (
    chance_precision,
    fit_multilabel_probe,
    mean_average_precision,
)
from vrl_jax.probes.result_files import Result, chance_level, expand_predictions


@dataclass(frozen=True)
class ProbeSuite:
    """Linear probe, kNN and retrieval on frozen features.

    Attributes:
      group: label for leave-one-group-out evaluation on the test videos, such as the person; ""
        trains on the training videos and tests on the test videos.
      cluster: label whose videos are held out together where the settings of the linear probe are
        chosen, such as the source video of clips; it is not predicted. "" holds out single videos.
      center: mean subtracted before cosines in retrieval and kNN: "none", "train" or "each".
      ks: numbers of neighbours k of the retrieval recall R@k.
      knn: number of neighbours of the kNN classifier.
      linear: the linear probe.
    """

    group: str = ""
    cluster: str = ""
    center: str = "none"
    ks: tuple[int, ...] = (1, 5, 10, 20, 50)
    knn: int = 20
    linear: LinearProbe = LinearProbe()

    def __post_init__(self):
        check.at_least(1, knn=self.knn, ks=min(self.ks))
        check.one_of(("none", "train", "each"), center=self.center)

    def check_data(self, prefix: str, labels: tuple[str, ...], train_videos: int) -> None:
        """Raise `ValueError` for an unknown group, or more neighbours than training videos.

        Args:
          prefix: path of these settings in the config, for the message.
          labels: labels of the videos.
          train_videos: number of training videos.
        """
        check_group(f"{prefix}.group", self.group, labels)
        check_group(f"{prefix}.cluster", self.cluster, labels)
        if not self.group:  # neighbours of left-out groups are not searched
            check_neighbours(prefix, {"ks": max(self.ks), "knn": self.knn}, train_videos)


@dataclass(frozen=True)
class ProbeConfig(ProbeSuite):
    """Probes of a pretraining run.

    Attributes:
      clips: clips per video; their features are averaged.
      batch: videos per encoder call, over all devices.
      probe_videos: number of training and of test videos, evenly spaced, for the probes during
        training; 0 uses all. The final results always use all.
      untrained: also evaluate the encoder before training in the final results.
      neighbours: test videos with their nearest neighbours in the report; 0 for none.
      parts: in the final results, also probe the embeddings that the method makes, such as a static
        and a dynamic part; see `vrl_jax.probes.leakage`.
      segments: likewise, the frame vectors in order, averaged over this many segments of a clip; 0
        for none.
    """

    clips: int = 1
    batch: int = 64
    probe_videos: int = 2048
    untrained: bool = True
    neighbours: int = 6
    parts: bool = False
    segments: int = 0

    def __post_init__(self):
        super().__post_init__()
        check.at_least(1, clips=self.clips, batch=self.batch)
        check.at_least(0, neighbours=self.neighbours, probe_videos=self.probe_videos)
        check.at_least(0, segments=self.segments)

    def check_data(self, prefix: str, labels: tuple[str, ...], train_videos: int) -> None:
        """Raise `ValueError` as `ProbeSuite` does, for the probes during training as well."""
        super().check_data(prefix, labels, min(train_videos, self.probe_videos or train_videos))


def check_neighbours(prefix: str, counts: Mapping[str, int], train_videos: int) -> None:
    """Raise `ValueError` where more neighbours are requested than there are training videos.

    Args:
      prefix: path of the settings in the config, for the message.
      counts: neighbours by setting.
      train_videos: number of training videos.
    """
    for name, count in counts.items():
        if count > train_videos:
            raise ValueError(
                f"{prefix}.{name} requests {count} neighbours among {train_videos} training "
                f"videos: pass a smaller --config.{prefix}.{name}"
            )


def check_group(name: str, group: str, labels: tuple[str, ...]) -> None:
    """Raise `ValueError` where the setting `name` is not a label of the videos, or the only one."""
    check.one_of(("", *labels), **{name: group})
    if group and len(labels) == 1:
        raise ValueError(
            f"{name}={group!r} is the only label of the videos: no other label is left to predict"
        )


def run_probes(
    train: FeatureBank,
    test: FeatureBank,
    classes: Mapping[str, tuple[str, ...]],
    config: ProbeSuite,
    stamp: Mapping[str, Any],
) -> list[Result]:
    """Return the result of every probe on every label.

    Where videos have several classes, the linear probe is measured by mean average precision, and
    there is no nearest-neighbour probe.

    Unreadable test videos count as wrong; unreadable training videos are left out.

    Args:
      train: features to train probes on, and the gallery of retrieval.
      test: features to test on, and the queries of retrieval.
      classes: class names by label name.
      config: the protocol.
      stamp: entries added to every result: protocol, model, data.
    """
    results = []
    for label, names in classes.items():
        if label in (config.group, config.cluster):
            continue
        several = test.labels[label].ndim == 2
        if several and config.group:
            raise ValueError(
                f"label {label!r} has several classes per video: evaluate it without leaving out "
                f"groups of {config.group!r}"
            )
        if several:
            by_probe = [_rank_classes(train.readable(), test, label, config)]
        elif config.group:
            by_probe = _leave_groups_out(test, label, len(names), config)
        else:
            by_probe = _train_and_test(train.readable(), test, label, len(names), config)
            by_probe = [_with_unreadable_wrong(result, test.unreadable) for result in by_probe]
        chance = (
            chance_precision(test.labels[label]) if several else chance_level(test.labels[label])
        )
        results += [_stamped(result, label, chance, stamp) for result in by_probe]
    return results


def summarize_probes(results: list[Result], test: FeatureBank) -> dict[str, float]:
    """Return the numbers to log during training: accuracies, chance, indicators of collapse."""
    values = {f"{r['name']}/{r['label']}": r["value"] for r in results if "value" in r}
    values |= {
        f"retrieval/{r['label']}": r["values"][min(r["values"], key=int)]
        for r in results
        if "values" in r
    }
    values |= {f"chance/{r['label']}": r["chance"] for r in results if "value" in r}
    return values | {
        f"collapse/{k}": v for k, v in collapse.collapse_metrics(test.readable().features).items()
    }


def _train_and_test(train, test, label, count, config) -> list[Result]:
    readable = test.readable()
    data = (train.features, train.labels[label], readable.features, readable.labels[label])
    clusters = train.labels[config.cluster] if config.cluster else None
    probe = linear_probe.fit_probe(
        *data, num_classes=count, settings=config.linear, groups=clusters
    )
    accuracy = knn.knn_accuracy(*data, k=config.knn, center=config.center)
    recall = retrieval.recall_at(
        readable.features,
        readable.labels[label],
        train.features,
        train.labels[label],
        ks=config.ks,
        center=config.center,
    )
    return [
        {
            "name": "linear",
            "value": probe.accuracy,
            "metric": "top-1 accuracy",
            "held_out_accuracy": probe.held_out_accuracy,
            "predictions": expand_predictions(probe.predictions, test),
            "chosen": {
                "learning_rate": probe.learning_rate,
                "weight_decay": probe.weight_decay,
            },
        },
        {"name": "knn", "value": accuracy, "metric": "top-1 accuracy"},
        {"name": "retrieval", "values": {str(k): v for k, v in recall.items()}, "metric": "recall"},
    ]


def _rank_classes(train, test, label, config) -> Result:
    """Return the mean average precision of a linear probe where videos have several classes."""
    readable = test.readable()
    truth = train.labels[label]
    result = fit_multilabel_probe(
        train.features,
        truth,
        readable.features,
        groups=train.labels[config.cluster] if config.cluster else np.arange(len(truth)),
        score=lambda logits, mask: mean_average_precision(logits, truth[mask]),
        settings=config.linear,
    )
    # Unreadable videos are ranked last: those of a class count as missed.
    logits = np.full(test.labels[label].shape, -np.inf, np.float32)
    logits[~test.unreadable] = result.logits
    return {
        "name": "linear",
        "value": mean_average_precision(logits, test.labels[label]),
        "metric": "mean average precision",
        "held_out_precision": result.held_out_score,
        "chosen": {"learning_rate": result.learning_rate, "weight_decay": result.weight_decay},
    }


def _leave_groups_out(test, label, count, config) -> list[Result]:
    readable = test.readable()
    result = linear_probe.leave_one_group_out(
        readable.features,
        readable.labels[label],
        readable.labels[config.group],
        num_classes=count,
        settings=config.linear,
    )
    groups = {}
    for group in np.unique(test.labels[config.group]).tolist():
        unreadable = test.unreadable[test.labels[config.group] == group]
        groups[str(group)] = result.per_group.get(group, 0.0) * float(1 - unreadable.mean())
    values = list(groups.values())
    return [
        {
            "name": "linear",
            "value": float(np.mean(values)),
            "std": float(np.std(values)),
            "held_out_accuracy": result.held_out_accuracy,
            "groups": groups,
            "predictions": expand_predictions(result.predictions, test),
            "metric": f"top-1 accuracy, mean over left-out {config.group}s",
        }
    ]


def _with_unreadable_wrong(result: Result, unreadable: np.ndarray) -> Result:
    """Scale a result on the readable test videos to all test videos."""
    share = float(1 - unreadable.mean())
    if "values" in result:
        return {**result, "values": {k: v * share for k, v in result["values"].items()}}
    return {**result, "value": result["value"] * share}


def _stamped(result, label, chance, stamp) -> Result:
    reference = {"chance": chance} if "value" in result else {}
    return {"label": label, **reference, **stamp, **result}
