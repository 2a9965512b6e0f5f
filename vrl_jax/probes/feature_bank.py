"""Feature extraction with a frozen encoder, the input of all probes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vrl_jax.data.video_dataset import VideoDataset, label_array


class FeatureBank(NamedTuple):
    """Features of a dataset's videos, in the order of the dataset.

    Attributes:
      features: one row per video.
      labels: class numbers by label name; masks of the classes where a video may have several.
      unreadable: whether the video could not be read, so that its features are meaningless.
    """

    features: Float[np.ndarray, "n d"]
    labels: Mapping[str, Int[np.ndarray, "n"] | Bool[np.ndarray, "n c"]]
    unreadable: Bool[np.ndarray, "n"]

    def readable(self) -> "FeatureBank":
        """Return the rows of the videos that could be read."""
        mask = ~self.unreadable
        labels = {name: numbers[mask] for name, numbers in self.labels.items()}
        return FeatureBank(self.features[mask], labels, self.unreadable[mask])


def split_columns(
    rows: Float[np.ndarray, "... d"], widths: Mapping[str, int]
) -> dict[str, Float[np.ndarray, "... _"]]:
    """Return parts that stand side by side in the last axis, by the names of their widths."""
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(rows, ends, axis=-1), strict=True))


def extract_features(
    encode: Callable[[UInt8[np.ndarray, "m t h w 3"]], Float[np.ndarray, "_ d"]],
    batches: Iterable[Mapping[str, Any]],
    dataset: VideoDataset,
    *,
    rows: int,
    hosts: int = 1,
) -> FeatureBank:
    """Encode every clip and average over the clips of each video.

    Args:
      encode: the compiled encoder with its evaluation transform. It takes the clips of this host
        and returns one vector per clip of all hosts, host after host.
      batches: from `eval_batches`: the videos of this host, each once, in order.
      dataset: all videos.
      rows: global batch size in videos. Short batches are padded, so that the encoder is compiled
        once and called equally often on every host.
      hosts: number of hosts that share the videos. `unreadable` covers the host's own videos only.
    """
    share, total = rows // hosts, len(dataset)
    batches, features, unreadable = iter(batches), [], np.zeros(total, bool)
    for _ in range(-(-total // rows)):
        batch = next(batches, None)  # a host may run out of videos before the others
        clips = batch["clips"] if batch else clips[:0]
        count = clips.shape[1]
        fill = np.zeros((share - len(clips), *clips.shape[1:]), clips.dtype)
        encoded = encode(np.concatenate([clips, fill]).reshape(-1, *clips.shape[2:]))
        by_host = np.asarray(encoded, np.float32).reshape(hosts, share, count, -1).mean(2)
        features.append(np.moveaxis(by_host, 0, 1).reshape(rows, -1))  # videos alternate by host
        if batch:
            unreadable[batch["index"]] = batch["failures"] != ""
    labels = {name: label_array(dataset, name) for name in dataset.classes}
    return FeatureBank(np.concatenate(features)[:total], labels, unreadable)
