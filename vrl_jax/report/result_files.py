"""Loading and validation of result files and their predictions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrl_jax import run_files

MORE = {"top5": "top-5 accuracy", "mean_class_accuracy": "mean class accuracy"}
PARTS = ("splits", "groups")  # a result may be a mean over one of these


@dataclass(frozen=True)
class Predictions:
    """The predicted class of each test video.

    Attributes:
      path: of the file.
      ids: str[n], of the videos.
      labels: int[n], true classes.
      predictions: int[n], -1 where the video could not be read.
      classes: str[c].
    """

    path: Path
    ids: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Result:
    """One measured quantity with its protocol, data and model.

    Attributes:
      path: of its file.
      run: name of the run.
      name: the evaluation, such as "linear", or with a prefix for a group, as in "order/reversed".
      label: the predicted label.
      metric: the metric of `values`.
      values: by the k of a metric "at k"; a single number under "".
      chance: chance level, where known, by the same keys.
      more: further metrics.
      part: the dimension of a mean: "splits", "groups", or "".
      parts: the value of each split or group.
      std: standard deviation over the parts.
      per_class: by class name.
      protocol: settings of the evaluation; its entry "changed" lists deviations from the named
        protocol.
      data: identity of the data.
      model: identity of the encoder, with the commit of the code.
      predictions: for each video, where available.
      position: in the list of results of one evaluation.
      skipped: evaluations that could not be run, with the reason.
    """

    path: Path
    run: str
    name: str
    label: str
    metric: str
    values: dict[str, float]
    chance: dict[str, float]
    more: dict[str, float]
    part: str
    parts: dict[str, float]
    std: float | None
    per_class: dict[str, float]
    protocol: run_files.Record
    data: run_files.Record
    model: run_files.Record
    predictions: Predictions | None
    position: int
    skipped: dict[str, str]

    @property
    def prefix(self) -> str:
        """The name up to its last "/"."""
        return self.name.rpartition("/")[0]

    @property
    def untrained(self) -> bool:
        """Whether the encoder has its initial weights."""
        return self.model.get("init") == "untrained"

    @property
    def measure(self) -> str:
        """Protocol and data as text; only results with the same text are comparable."""
        return json.dumps([self.protocol, self.data], sort_keys=True)


def load_result(path: Path, run: str) -> Result:
    """Read a result and, from the npz file of the same name, its predictions.

    Raises:
      ValueError: one of the files is damaged or incomplete.
    """
    npz = path.with_suffix(".npz")
    return parse_result(
        run_files.read_json(path), path, run, load_predictions(npz) if npz.is_file() else None
    )


def parse_result(
    content: run_files.Record, path: Path, run: str, predictions: Predictions | None = None
) -> Result:
    """Return the content of a file as a result; raises `ValueError` as `load_result`."""
    absent = {"name", "protocol", "data"} - content.keys()
    if absent or not {"value", "values"} & content.keys():
        has = ", ".join(content) or "nothing"
        raise ValueError(
            f"{path} must have name, protocol, data, and value or values; it has {has}"
        )
    single = "value" in content
    values = _numbers(path, content, "value" if single else "values")
    part = next((key for key in PARTS if content.get(key)), "")
    parts = _numbers(path, content, part)
    spread = float(np.std(list(parts.values()))) if parts else None
    provenance = {"commit": content["commit"]} if "commit" in content else {}
    unreadable = _numbers(path, content, "unreadable") if content.get("unreadable") else {}
    texts = [f"{count} of {part}" for part, count in unreadable.items() if count]
    if texts:
        provenance["unreadable"] = ", ".join(texts)
    return Result(
        path=path,
        run=run,
        name=str(content["name"]),
        label=str(content.get("label", "")),
        metric=str(content.get("metric", "" if single else "recall")),
        values=values,
        chance=_numbers(path, content, "chance"),
        more={
            name: _numbers(path, content, key)[""] for key, name in MORE.items() if key in content
        },
        part=part,
        parts=parts,
        std=_numbers(path, content, "std").get("", spread),
        per_class=_numbers(path, content, "per_class"),
        protocol=_protocol(path, content),
        data=_section(path, content, "data"),
        model={**(_section(path, content, "model") if "model" in content else {}), **provenance},
        predictions=predictions,
        position=content.get("position", 0),
        skipped=content.get("skipped", {}),
    )


def load_predictions(path: Path) -> Predictions:
    """Read predictions.

    Raises:
      ValueError: the file is damaged, its arrays differ in length, or a class does not exist.
    """
    names = ["ids", "labels", "predictions", "classes"]
    arrays = run_files.read_arrays(path, names)
    predictions = Predictions(path, *(arrays[name] for name in names))
    sizes = [len(arrays[name]) for name in ("ids", "labels", "predictions")]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{path} must have one label and one prediction per id, got lengths {sizes}"
        )
    count = len(predictions.classes)
    for name, minimum in (("labels", 0), ("predictions", -1)):
        array = arrays[name]
        if array.dtype.kind not in "iu" or ((array < minimum) | (array >= count)).any():
            raise ValueError(f"{path}: {name} must be integers from {minimum} to {count - 1}")
    return predictions


def _numbers(path: Path, content: run_files.Record, key: str) -> dict[str, float]:
    """Return the numbers under a key; a single number gets the key ""."""
    entry = content.get(key)
    if entry is None and key not in ("value", "values"):
        return {}
    numbers = entry if isinstance(entry, dict) else {"": entry}
    if not numbers or not all(type(value) in (int, float) for value in numbers.values()):
        raise ValueError(f"{path}: {key} must hold numbers, got {json.dumps(entry)}")
    return numbers


def _section(path: Path, content: run_files.Record, key: str) -> run_files.Record:
    if not isinstance(content[key], dict) or not content[key]:
        got = json.dumps(content[key])
        raise ValueError(f"{path}: {key} must be an object with entries, got {got}")
    return content[key]


def _protocol(path: Path, content: run_files.Record) -> run_files.Record:
    protocol = _section(path, content, "protocol")
    changed: Mapping[str, Any] = protocol.get("changed") or {}
    for key, pair in changed.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(
                f"{path}: protocol.changed.{key} must be [actual setting, setting of the "
                f"protocol], got {json.dumps(pair)}"
            )
    return protocol
