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
    clips: UInt8[np.ndarray, "m t h w 3"], segments: int, side: int = SIDE
) -> Float[np.ndarray, "m d"]:
    """Describe each clip by `motion_pixels` of consecutive segments, in order.

    Args:
      clips: decoded frames.
      segments: of the differences between frames.
      side: of the grid that they are averaged over.

    Raises:
      ValueError: fewer differences of frames than segments.
    """
    if clips.shape[1] <= segments:
        raise ValueError(f"segments must be below {clips.shape[1]}, the frames, got {segments}")
    grey = clips.astype(np.float32).mean(-1)
    parts = np.array_split(np.abs(np.diff(grey, axis=1)), segments, axis=1)
    return np.concatenate([_shrink(part.mean(1), side) for part in parts], axis=1)


def _shrink(images: Float[np.ndarray, "m h w"], side: int = SIDE) -> Float[np.ndarray, "m d"]:
    """Downsample to `side` x `side` by area averaging, and flatten."""
    rows, columns = (_areas(length, side) for length in images.shape[1:])
    return (rows @ images @ columns.T).reshape(len(images), -1)


def _areas(length: int, side: int) -> Float[np.ndarray, "side length"]:
    """Return the weight of each pixel in the mean of each of `side` equal intervals."""
    edges, pixels = np.arange(side + 1)[:, None] * length / side, np.arange(length)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.maximum(overlap, 0) * side / length).astype(np.float32)
