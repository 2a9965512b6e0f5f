"""A frozen encoder and a source make a feature bank: what every probe starts from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vrl_jax.data.dataset import VideoDataset


class FeatureBank(NamedTuple):
    """Features of a source's videos, in its order.

    Attributes:
      features: one row a video.
      labels: class numbers by label name.
      unreadable: whether the video could not be read: its features say nothing.
    """

    features: Float[np.ndarray, "n d"]
    labels: Mapping[str, Int[np.ndarray, "n"]]
    unreadable: Bool[np.ndarray, "n"]

    def readable(self) -> "FeatureBank":
        """Return the rows of the videos that were read."""
        kept = ~self.unreadable
        labels = {name: numbers[kept] for name, numbers in self.labels.items()}
        return FeatureBank(self.features[kept], labels, self.unreadable[kept])


def extract_features(
    encode: Callable[[UInt8[np.ndarray, "m t h w 3"]], Float[np.ndarray, "_ d"]],
    batches: Iterable[Mapping[str, Any]],
    source: VideoDataset,
    *,
    rows: int,
    hosts: int = 1,
) -> FeatureBank:
    """Encode every clip and average a video's clips.

    Args:
      encode: the compiled encoder with its evaluation transform: this host's clips to one vector a
        clip, of all hosts, host after host.
      batches: of `eval_batches`: this host's videos, each once, in order.
      source: all of the videos.
      rows: videos that all hosts together encode at a time; what is missing to that is filled up,
        so that it compiles once and all hosts call it equally often.
      hosts: that share the videos; each knows of the unreadable ones among its own alone.
    """
    share, total = rows // hosts, len(source)
    batches, features, unreadable = iter(batches), [], np.zeros(total, bool)
    for _ in range(-(-total // rows)):
        batch = next(batches, None)  # a host may run out of videos before others do
        clips = batch["clips"] if batch else clips[:0]
        count = clips.shape[1]
        fill = np.zeros((share - len(clips), *clips.shape[1:]), clips.dtype)
        encoded = encode(np.concatenate([clips, fill]).reshape(-1, *clips.shape[2:]))
        by_host = np.asarray(encoded, np.float32).reshape(hosts, share, count, -1).mean(2)
        features.append(np.moveaxis(by_host, 0, 1).reshape(rows, -1))  # hosts take turns
        if batch:
            unreadable[batch["index"]] = batch["failures"] != ""
    labels = {
        name: np.array([source[i].labels[name] for i in range(total)]) for name in source.classes
    }
    return FeatureBank(np.concatenate(features)[:total], labels, unreadable)
