"""Results of evaluations, written as one JSON file each with an npz file of predictions."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from vrl_jax import atomic_files
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.probes.feature_bank import FeatureBank

# A number under "value" (or one per k under "values"), described by "name", "label" and "metric",
# with its provenance under "protocol", "model" and "data". "predictions" are the predicted classes
# of all test videos, -1 for unreadable ones; they are written to the npz file.
Result = dict[str, Any]
UNREADABLE = -1
NUMBERS = (
    *("value", "values", "top5", "mean_class_accuracy", "chance"),
    *("held_out_accuracy", "held_out_precision"),
    *("drop", "per_class", "drop_per_class"),
)  # entries of a result that can be averaged over splits


def chance_level(labels: Int[np.ndarray, "n"]) -> float:
    """Return the accuracy of always naming the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def expand_predictions(
    predictions: Int[np.ndarray, "m"], bank: FeatureBank
) -> Int[np.ndarray, "n"]:
    """Return predictions for all videos of a bank from those for its readable videos."""
    expanded = np.full(len(bank.unreadable), UNREADABLE)
    expanded[~bank.unreadable] = predictions
    return expanded


def top_accuracies(name: str, probabilities: FeatureBank, label: str) -> Result:
    """Return top-1, top-5 and mean class accuracy.

    Unreadable videos count as wrong. Mean class accuracy is over the classes with test videos
    (Diving48 has one without).
    """
    labels = probabilities.labels[label]
    predictions = expand_predictions(probabilities.readable().features.argmax(1), probabilities)
    top5 = np.argsort(-probabilities.features, axis=1, kind="stable")[:, :5]
    in_top5 = (top5 == labels[:, None]).any(1) & ~probabilities.unreadable
    correct = predictions == labels
    classes = [correct[labels == number].mean() for number in np.unique(labels)]
    return {
        "name": name,
        "label": label,
        "metric": "top-1 accuracy",
        "value": float(correct.mean()),
        "top5": float(in_top5.mean()),
        "mean_class_accuracy": float(np.mean(classes)),
        "chance": chance_level(labels),
        "predictions": predictions,
    }


def average_splits(by_split: Mapping[str, list[Result]]) -> list[Result]:
    """Return the mean over official splits, or over draws, of the results that all of them have.

    Keys are splits and draws such as "1", "draw 0" or "1 draw 0". Numbers are averaged, also per
    class and per k; other entries are dropped.
    """
    by_stem = {split: {_stem(one): one for one in results} for split, results in by_split.items()}
    first, *others = by_stem.values()
    return [
        _mean_of({split: results[stem] for split, results in by_stem.items()})
        for stem in first
        if all(stem in results for results in others)
    ]


def _mean_of(splits: Mapping[str, Result]) -> Result:
    results = list(splits.values())
    first = results[0]
    mean = {key: first[key] for key in ("name", "label", "metric", "model", "commit")}
    mean["protocol"] = {**first["protocol"], "split": f"mean of {', '.join(splits)}"}
    if subset := dict(first["protocol"].get("subset", {})):
        del subset["draw"]
        mean["protocol"]["subset"] = subset
    for key in ("data", "unreadable"):
        mean[key] = {split: result[key] for split, result in splits.items()}
    mean["unreadable"] = {
        f"{part} of {_name_split(split)}": count
        for split, parts in mean["unreadable"].items()
        for part, count in parts.items()
    }
    for key in NUMBERS:
        if key in first:
            mean[key] = _mean([result[key] for result in results])
    if "value" in first:
        values = {split: result["value"] for split, result in splits.items()}
        mean |= {"std": float(np.std(list(values.values()))), "splits": values}
    return mean


def _name_split(split: str) -> str:
    return split if split.startswith("draw") else f"split {split}"


def _mean(values: list[Any]) -> Any:
    """Return the mean of numbers, or of dictionaries of numbers over their common keys."""
    if isinstance(values[0], Mapping):
        shared = [key for key in values[0] if all(key in value for value in values)]
        return {key: _mean([value[key] for value in values]) for key in shared}
    return float(np.mean(values))


def write_results(
    folder: pathlib.Path, results: list[Result], test: VideoDataset | None = None
) -> None:
    """Write each result as `<name>-<label>.json`, and its predictions as npz of the same name.

    Earlier results with the same prefix, the name up to its "/", are removed. File names have a
    suffix `-untrained` for untrained encoders, and the centring for retrieval.

    Args:
      folder: created where it does not exist.
      results: with distinct names.
      test: the test videos, required where results have predictions.

    Raises:
      ValueError: two results have the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems = [_stem(result) for result in results]
    if len(set(stems)) < len(stems):
        raise ValueError(f"two results have the same name among {', '.join(stems)}")
    for prefix in {result["name"].partition("/")[0] for result in results}:
        for earlier in folder.glob(f"{prefix}-*"):
            earlier.unlink()
    for position, (stem, result) in enumerate(zip(stems, results, strict=True)):
        content = {key: item for key, item in result.items() if key != "predictions"}
        content["position"] = position
        atomic_files.write_text(folder / f"{stem}.json", json.dumps(content, indent=2))
        if "predictions" in result:
            videos = [test[number] for number in range(len(test))]
            arrays = {
                "ids": np.array([video.id for video in videos]),
                "labels": np.array([video.labels[result["label"]] for video in videos]),
                "predictions": result["predictions"],
                "classes": np.array(test.classes[result["label"]]),
            }
            atomic_files.write_npz(folder / f"{stem}.npz", arrays, compress=True)


def _stem(result: Result) -> str:
    parts = [result["name"], result["label"]]
    if result["name"] == "retrieval":
        parts.append(result["protocol"]["centring"])
    if result.get("model", {}).get("init") == "untrained":
        parts.append("untrained")
    return "-".join(part.replace("/", "-") for part in parts)
