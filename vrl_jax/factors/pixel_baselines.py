"""Pixel descriptors of appearance and motion, baselines without an encoder."""

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 32


def appearance_pixels(clips: UInt8[np.ndarray, "m t h w 3"]) -> Float[np.ndarray, "m d"]:
    """Describe each clip by its middle frame, 32 x 32 grey pixels."""
    return _shrink(clips[:, clips.shape[1] // 2].astype(np.float32).mean(-1))


def motion_pixels(clips: UInt8[np.ndarray, "m t h w 3"]) -> Float[np.ndarray, "m d"]:
    """Describe each clip by the mean absolute difference of its grey frames, 32 x 32."""
    grey = clips.astype(np.float32).mean(-1)
    return _shrink(np.abs(np.diff(grey, axis=1)).mean(1))


def ordered_motion_pixels(
    clips: UInt8[np.ndarray, "m t h w 3"], segments: int
) -> Float[np.ndarray, "m d"]:
    """Describe each clip by `motion_pixels` of consecutive segments, in order.

    Raises:
      ValueError: fewer differences of frames than segments.
    """
    if clips.shape[1] <= segments:
        raise ValueError(f"segments must be below {clips.shape[1]}, the frames, got {segments}")
    grey = clips.astype(np.float32).mean(-1)
    parts = np.array_split(np.abs(np.diff(grey, axis=1)), segments, axis=1)
    return np.concatenate([_shrink(part.mean(1)) for part in parts], axis=1)


def _shrink(images: Float[np.ndarray, "m h w"]) -> Float[np.ndarray, "m d"]:
    """Downsample to 32 x 32 by area averaging, and flatten."""
    rows, columns = (_areas(side) for side in images.shape[1:])
    return (rows @ images @ columns.T).reshape(len(images), -1)


def _areas(side: int) -> Float[np.ndarray, "a n"]:
    """Return the weight of each of n pixels in the mean of each of 32 equal intervals."""
    edges = np.arange(SIDE + 1)[:, None] * side / SIDE
    overlap = np.minimum(edges[1:], np.arange(side) + 1) - np.maximum(edges[:-1], np.arange(side))
    return (np.maximum(overlap, 0) * SIDE / side).astype(np.float32)
