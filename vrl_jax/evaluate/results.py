"""A result: what tables are built from. One JSON each, and what was predicted beside it."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from vrl_jax.data.sources import Source
from vrl_jax.evaluate.features import FeatureBank

# A number under "value" (or one per k under "values"), what it is under "name", "label" and
# "metric", and how it was found under "protocol", "model" and "data". "predictions" are the class
# numbers of all test videos, -1 for the unreadable: they go into a file of their own.
Result = dict[str, Any]
UNREADABLE = -1


def chance(labels: Int[np.ndarray, "n"]) -> float:
    """Return the accuracy of always naming the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def everywhere(predictions: Int[np.ndarray, "m"], bank: FeatureBank) -> Int[np.ndarray, "n"]:
    """Return predictions for the readable videos of a bank as predictions for all of them."""
    whole = np.full(len(bank.unreadable), UNREADABLE)
    whole[~bank.unreadable] = predictions
    return whole


def classify(name: str, probabilities: FeatureBank, label: str) -> Result:
    """Return how often the most probable class is right, and how often one of the five is.

    Videos that could not be read count as wrong. The mean over classes leaves out those that have
    no test video (Diving48 has one).
    """
    truth = probabilities.labels[label]
    found = everywhere(probabilities.readable().features.argmax(1), probabilities)
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
        "chance": chance(truth),
        "predictions": found,
    }


def average(by_split: Mapping[int, list[Result]]) -> list[Result]:
    """Return the mean over official splits of results that come in the same order for each."""
    averaged = []
    for same in zip(*by_split.values(), strict=True):
        splits = dict(zip(map(str, by_split), same, strict=True))
        first = {key: item for key, item in same[0].items() if key not in ("predictions", "groups")}
        protocol = {**first["protocol"], "split": f"mean of {', '.join(splits)}"}
        data = {split: result["data"] for split, result in splits.items()}
        kept = {**first, "protocol": protocol, "data": data}
        if "values" in kept:
            kept["values"] = {
                k: _mean(result["values"][k] for result in same) for k in kept["values"]
            }
        else:
            for key in ("value", "top5", "mean_class_accuracy", "held_out_accuracy", "chance"):
                if key in kept:
                    kept[key] = _mean(result[key] for result in same)
            values = [result["value"] for result in same]
            kept |= {"std": float(np.std(values)), "splits": dict(zip(splits, values, strict=True))}
        averaged.append(kept)
    return averaged


def write(folder: pathlib.Path, results: list[Result], test: Source | None = None) -> None:
    """Write each result as `<name>-<label>.json`, and its predictions as `.npz` of that name.

    What the folder held of an earlier judgement is removed. A result of an untrained encoder has
    `-untrained` in its name, one of retrieval its centring.

    Args:
      folder: is made where it is not there.
      results: two of one name are an error.
      test: the judged videos, wanted where there are predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems = [_stem(result) for result in results]
    if len(set(stems)) < len(stems):
        raise ValueError(f"two results have one name among {', '.join(stems)}")
    for earlier in [*folder.glob("*.json"), *folder.glob("*.npz")]:
        earlier.unlink()
    for place, (stem, result) in enumerate(zip(stems, results, strict=True)):
        kept = {key: item for key, item in result.items() if key != "predictions"}
        kept["place"] = place
        (folder / f"{stem}.json").write_text(json.dumps(kept, indent=2))
        if "predictions" in result:
            videos = [test[number] for number in range(len(test))]
            np.savez_compressed(
                folder / f"{stem}.npz",
                ids=np.array([video.id for video in videos]),
                labels=np.array([video.labels[result["label"]] for video in videos]),
                predictions=result["predictions"],
                classes=np.array(test.classes[result["label"]]),
            )


def _stem(result: Result) -> str:
    parts = [result["name"], result["label"]]
    if result["name"] == "retrieval":
        parts.append(result["protocol"]["centring"])
    if result.get("model", {}).get("init") == "untrained":
        parts.append("untrained")
    return "-".join(part.replace("/", "-") for part in parts)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
