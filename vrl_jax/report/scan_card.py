"""The card of a scanned encoder: one JSON file with the results of every layer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vrl_jax import run_files

VERSION = 2
NO_LAYER = ""  # the layer of pixel baselines, which need no encoder
# The input that an encoder was made for is its own; everything else is the protocol.
OWN_INPUT = ("resolution", "decoded", "input_mean", "input_std", "background")
KEYS = ("name", "model", "protocol", "data", "videos", "layers", "skipped", "results")


class LayerResult(NamedTuple):
    """One number of one layer.

    Attributes:
      layer: name of the layer, or `NO_LAYER`.
      name: the measurement, such as "order/reversed".
      label: the predicted label, or what the number is about.
      untrained: whether the encoder has its initial weights.
      value: the number.
      metric: its metric.
      chance: chance level, where known.
      interval: 95 % interval, where known.
    """

    layer: str
    name: str
    label: str
    untrained: bool
    value: float
    metric: str
    chance: float | None = None
    interval: tuple[float, float] | None = None


class ScanCard(NamedTuple):
    """A scanned encoder.

    Attributes:
      name: of the scan.
      model: identity of the encoder.
      protocol: settings of the evaluation.
      data: identity of the data.
      videos: number of videos by part.
      layers: names of the layers, from input to output.
      skipped: measurements that could not be made, with the reason.
      results: of all layers.
    """

    name: str
    model: run_files.Record
    protocol: run_files.Record
    data: run_files.Record
    videos: dict[str, int]
    layers: list[str]
    skipped: dict[str, str]
    results: list[LayerResult]

    @property
    def shared_protocol(self) -> run_files.Record:
        """The protocol without the input that the encoder was made for."""
        return {key: entry for key, entry in self.protocol.items() if key not in OWN_INPUT}

    @property
    def measure(self) -> str:
        """Protocol and data as text; only cards with the same text are comparable."""
        return json.dumps([self.shared_protocol, self.data], sort_keys=True)

    def find_result(
        self, layer: str, name: str, label: str, untrained: bool = False
    ) -> LayerResult | None:
        """Return one result; None where it was not measured."""
        key = (layer, name, label, untrained)
        return next((result for result in self.results if result[:4] == key), None)


def make_card(name: str, files: Mapping[str, Path]) -> run_files.Record:
    """Return the card of an encoder from the `layers.json` of its tasks.

    Args:
      name: of the scan.
      files: by "trained" and "untrained", the first of which describes the encoder. A single one
        is the encoder itself.
    """
    parts = {part: run_files.read_json(path) for part, path in files.items()}
    first = next(iter(parts.values()))
    results = [
        {**result, "untrained": part == "untrained" and len(parts) > 1}
        for part, content in parts.items()
        for result in content["results"]
        if content is first or result["layer"] != NO_LAYER  # both have the same baselines
    ]
    return {"card": VERSION, "name": name, **first, "results": results}


def read_card(path: Path) -> ScanCard:
    """Read a card.

    Raises:
      ValueError: the file is not a card of this version, or damaged.
    """
    content = run_files.read_json(path)
    if content.get("card") != VERSION:
        raise ValueError(f"{path} must be a card of version {VERSION}: scan again")
    absent = [key for key in KEYS if key not in content]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}")
    for key in ("model", "protocol", "data", "videos", "skipped"):
        if not isinstance(content[key], dict):
            raise ValueError(f"{path}: {key} must be an object, got {content[key]!r}")
    layers = content["layers"]
    if not isinstance(layers, list) or not layers or not all(isinstance(x, str) for x in layers):
        raise ValueError(f"{path}: layers must be names, got {layers!r}")
    try:
        results = [_read_result(result) for result in content["results"]]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a damaged result: {error!r}") from None
    return ScanCard(*(content[key] for key in KEYS[:-1]), results)


def _read_result(result: run_files.Record) -> LayerResult:
    interval = result.get("interval")
    return LayerResult(
        *(result[key] for key in ("layer", "name", "label", "untrained")),
        value=float(result["value"]),
        metric=result["metric"],
        chance=result.get("chance"),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
    )
