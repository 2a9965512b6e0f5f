"""A result: what tables are built from. One JSON each, and what was predicted beside it."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from vrl_jax import files
from vrl_jax.data.dataset import VideoDataset
from vrl_jax.probes.features import FeatureBank

# A number under "value" (or one per k under "values"), what it is under "name", "label" and
# "metric", and how it was found under "protocol", "model" and "data". "predictions" are the class
# numbers of all test videos, -1 for the unreadable: they go into a file of their own.
Result = dict[str, Any]
UNREADABLE = -1
NUMBERS = (
    *("value", "values", "top5", "mean_class_accuracy", "held_out_accuracy", "chance"),
    *("drop", "per_class", "drop_per_class"),
)  # of a result, that can be averaged over splits


def chance_level(labels: Int[np.ndarray, "n"]) -> float:
    """Return the accuracy of always naming the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def expand_predictions(
    predictions: Int[np.ndarray, "m"], bank: FeatureBank
) -> Int[np.ndarray, "n"]:
    """Return predictions for the readable videos of a bank as predictions for all of them."""
    whole = np.full(len(bank.unreadable), UNREADABLE)
    whole[~bank.unreadable] = predictions
    return whole


def top_accuracies(name: str, probabilities: FeatureBank, label: str) -> Result:
    """Return how often the most probable class is right, and how often one of the five is.

    Videos that could not be read count as wrong. The mean over classes leaves out those that have
    no test video (Diving48 has one).
    """
    truth = probabilities.labels[label]
    found = expand_predictions(probabilities.readable().features.argmax(1), probabilities)
    best = np.argsort(-probabilities.features, axis=1, kind="stable")[:, :5]
    among = (best == truth[:, None]).any(1) & ~probabilities.unreadable
    right = found == truth
    classes = [right[truth == number].mean() for number in np.unique(truth)]
    return {
        "name": name,
        "label": label,
        "metric": "top-1 accuracy",
        "value": float(right.mean()),
        "top5": float(among.mean()),
        "mean_class_accuracy": float(np.mean(classes)),
        "chance": chance_level(truth),
        "predictions": found,
    }


def average_splits(by_split: Mapping[int, list[Result]]) -> list[Result]:
    """Return the mean over official splits of what was found on all of them.

    Numbers are averaged, also those of classes and of ks; what cannot be is left out.
    """
    found = {split: {_stem(one): one for one in given} for split, given in by_split.items()}
    first, *others = found.values()
    return [
        _mean_of({str(split): given[stem] for split, given in found.items()})
        for stem in first
        if all(stem in given for given in others)
    ]


def _mean_of(splits: Mapping[str, Result]) -> Result:
    same = list(splits.values())
    first = same[0]
    kept = {key: first[key] for key in ("name", "label", "metric", "model", "commit")}
    kept["protocol"] = {**first["protocol"], "split": f"mean of {', '.join(splits)}"}
    for key in ("data", "unreadable"):
        kept[key] = {split: result[key] for split, result in splits.items()}
    kept["unreadable"] = {
        f"{part} of split {split}": count
        for split, parts in kept["unreadable"].items()
        for part, count in parts.items()
    }
    for key in NUMBERS:
        if key in first:
            kept[key] = _mean([result[key] for result in same])
    if "value" in first:
        values = {split: result["value"] for split, result in splits.items()}
        kept |= {"std": float(np.std(list(values.values()))), "splits": values}
    return kept


def _mean(values: list[Any]) -> Any:
    """Return the mean of numbers, or of dictionaries of numbers, over the keys that all have."""
    if isinstance(values[0], Mapping):
        shared = [key for key in values[0] if all(key in value for value in values)]
        return {key: _mean([value[key] for value in values]) for key in shared}
    return float(np.mean(values))


def write_results(
    folder: pathlib.Path, results: list[Result], test: VideoDataset | None = None
) -> None:
    """Write each result as `<name>-<label>.json`, and its predictions as `.npz` of that name.

    What the folder held of the same kinds is removed; a kind is a name up to its "/". A result of
    an untrained encoder has `-untrained` in its name, one of retrieval its centring.

    Args:
      folder: is made where it is not there.
      results: two of one name are an error.
      test: the judged videos, wanted where there are predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems = [_stem(result) for result in results]
    if len(set(stems)) < len(stems):
        raise ValueError(f"two results have one name among {', '.join(stems)}")
    for kind in {result["name"].partition("/")[0] for result in results}:
        for earlier in folder.glob(f"{kind}-*"):
            earlier.unlink()
    for position, (stem, result) in enumerate(zip(stems, results, strict=True)):
        kept = {key: item for key, item in result.items() if key != "predictions"}
        kept["position"] = position
        files.write_text(folder / f"{stem}.json", json.dumps(kept, indent=2))
        if "predictions" in result:
            videos = [test[number] for number in range(len(test))]
            arrays = {
                "ids": np.array([video.id for video in videos]),
                "labels": np.array([video.labels[result["label"]] for video in videos]),
                "predictions": result["predictions"],
                "classes": np.array(test.classes[result["label"]]),
            }
            files.write_npz(folder / f"{stem}.npz", arrays, compress=True)


def _stem(result: Result) -> str:
    parts = [result["name"], result["label"]]
    if result["name"] == "retrieval":
        parts.append(result["protocol"]["centring"])
    if result.get("model", {}).get("init") == "untrained":
        parts.append("untrained")
    return "-".join(part.replace("/", "-") for part in parts)
