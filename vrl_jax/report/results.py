"""One evaluation's result: its file, checked, and the predictions beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrl_jax.report import files

MORE = {"top5": "top-5 accuracy", "mean_class_accuracy": "mean class accuracy"}
PARTS = ("splits", "groups")  # what the mean in a result may be taken over


@dataclass(frozen=True)
class Predictions:
    """What an evaluation said of each video.

    Attributes:
      path: of their file.
      ids: str[n], of the videos.
      labels: int[n].
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
    """What one evaluation found.

    Attributes:
      path: of its file.
      run: whose it is.
      name: what was done, such as "linear"; those of a kind share a prefix, as in "order/reversed".
      label: what was to be told.
      metric: what `values` are.
      values: by the k of a metric "at k"; a single number under "".
      chance: what guessing scores, where that is known, by the same keys.
      more: what else was found, by metric.
      part: what a mean was taken over: "splits", "groups", or "".
      parts: the number found for each of them.
      std: over the parts.
      per_class: by class name.
      protocol: how it was measured; "changed" in it tells what deviates from the named protocol.
      data: on what.
      model: of what, with the commit of the code.
      predictions: for each video, where they were kept.
      place: among the results of one evaluation.
      skipped: what was not asked, and why.
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
    protocol: files.Record
    data: files.Record
    model: files.Record
    predictions: Predictions | None
    place: int
    skipped: dict[str, str]

    @property
    def kind(self) -> str:
        """What stands before the last "/" of the name."""
        return self.name.rpartition("/")[0]

    @property
    def untrained(self) -> bool:
        """Whether the encoder still has the weights that it began with."""
        return self.model.get("init") == "untrained"

    @property
    def measure(self) -> str:
        """How and on what it was measured; only results that agree in it may be compared."""
        return json.dumps([self.protocol, self.data], sort_keys=True)


def load_result(path: Path, run: str) -> Result:
    """Read a result's file; raises `ValueError` naming the file and what is wrong in it."""
    beside = path.with_suffix(".npz")
    return parse_result(
        files.json_object(path), path, run, load_predictions(beside) if beside.is_file() else None
    )


def parse_result(
    content: files.Record, path: Path, run: str, predictions: Predictions | None = None
) -> Result:
    """Return the content of a file as a result; raises `ValueError` as `load` does."""
    wanted = {"name", "protocol", "data"} - content.keys()
    if wanted or not {"value", "values"} & content.keys():
        has = ", ".join(content) or "nothing"
        raise ValueError(f"{path} must have name, protocol, data, value or values; it has {has}")
    single = "value" in content
    values = _numbers(path, content, "value" if single else "values")
    part = next((key for key in PARTS if content.get(key)), "")
    parts = _numbers(path, content, part)
    spread = float(np.std(list(parts.values()))) if parts else None
    told = {"commit": content["commit"]} if "commit" in content else {}
    unreadable = _numbers(path, content, "unreadable") if content.get("unreadable") else {}
    unreadable = {part: count for part, count in unreadable.items() if count}
    if unreadable:
        told["unreadable"] = ", ".join(f"{count} of {part}" for part, count in unreadable.items())
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
        data=_filled(path, content, "data"),
        model={**(_filled(path, content, "model") if "model" in content else {}), **told},
        predictions=predictions,
        place=content.get("place", 0),
        skipped=content.get("skipped", {}),
    )


def load_predictions(path: Path) -> Predictions:
    """Read predictions; raises `ValueError` naming the file where they contradict themselves."""
    names = ["ids", "labels", "predictions", "classes"]
    given = files.read_arrays(path, names)
    found = Predictions(path, *(given[name] for name in names))
    sizes = [len(array) for array in (found.ids, found.labels, found.predictions)]
    if len(set(sizes)) > 1:
        raise ValueError(f"{path} must have one label and prediction an id, got {sizes} of them")
    count = len(found.classes)
    for name, least in (("labels", 0), ("predictions", -1)):
        array = given[name]
        if array.dtype.kind not in "iu" or ((array < least) | (array >= count)).any():
            raise ValueError(f"{path}: {name} must be whole numbers from {least} to {count - 1}")
    return found


def _numbers(path: Path, content: files.Record, key: str) -> dict[str, float]:
    """Return the numbers under a key by their own keys; a bare number stands under ""."""
    given = content.get(key)
    if given is None and key not in ("value", "values"):
        return {}
    numbers = given if isinstance(given, dict) else {"": given}
    if not numbers or not all(type(value) in (int, float) for value in numbers.values()):
        raise ValueError(f"{path}: {key} must hold numbers, got {json.dumps(given)}")
    return numbers


def _filled(path: Path, content: files.Record, key: str) -> files.Record:
    if not isinstance(content[key], dict) or not content[key]:
        got = json.dumps(content[key])
        raise ValueError(f"{path}: {key} must be an object with entries, got {got}")
    return content[key]


def _protocol(path: Path, content: files.Record) -> files.Record:
    protocol = _filled(path, content, "protocol")
    changed: Mapping[str, Any] = protocol.get("changed") or {}
    for key, pair in changed.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(
                f"{path}: protocol.changed.{key} must be [what was done, what the protocol has], "
                f"got {json.dumps(pair)}"
            )
    return protocol
