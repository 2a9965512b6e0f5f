"""A frozen encoder and a source make a feature bank: what every probe starts from."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8


class FeatureBank(NamedTuple):
    """Features of a source's videos, in its order.

    Attributes:
      features: one row a video.
      labels: class numbers by label name.
    """

    features: Float[np.ndarray, "n d"]
    labels: Mapping[str, Int[np.ndarray, "n"]]


def extract(
    encode: Callable[[UInt8[Array, "m t h w 3"]], Float[Array, "m d"]],
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    rows: int,
) -> FeatureBank:
    """Encode every clip and average a video's clips.

    Args:
      encode: the compiled encoder with its evaluation transform: clips to one vector each.
      batches: of `clips` u8[n k t h w 3] and `labels`, each video once, in order.
      rows: videos that `encode` is given at a time; a last, shorter batch is filled up so that
        it compiles once.
    """
    features, labels = [], []
    for batch in batches:
        clips = batch["clips"]
        videos, count = clips.shape[:2]
        fill = np.zeros((rows - videos, *clips.shape[1:]), clips.dtype)
        flat = np.concatenate([clips, fill]).reshape(-1, *clips.shape[2:])
        encoded = np.asarray(jax.device_get(encode(flat)), np.float32)
        features.append(encoded.reshape(rows, count, -1).mean(1)[:videos])
        labels.append(batch["labels"])
    names = labels[0].keys()
    return FeatureBank(
        np.concatenate(features),
        {name: np.concatenate([batch[name] for batch in labels]) for name in names},
    )
