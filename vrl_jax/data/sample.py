"""Which frames make a clip: pure functions of integers, tested without any video."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vrl_jax import check


@dataclass(frozen=True)
class Sampling:
    """How clips are cut from a video.

    Attributes:
      frames: frames in a clip.
      stride: frames from one to the next, counted at the rate `fps`.
      clips: clips of a video.
      fps: the rate `stride` counts at; 0 is each video's own. With `fps=30`, `stride=4` takes a
        frame every 4/30 s of any video: every 2nd of a 15 fps one.
    """

    frames: int = 16
    stride: int = 4
    clips: int = 2
    fps: float = 0.0

    def __post_init__(self) -> None:
        """Refuse counts below one and negative rates."""
        check.at_least(1, frames=self.frames, stride=self.stride, clips=self.clips)
        check.at_least(0, fps=self.fps)


def random_clips(
    rng: np.random.Generator, num_frames: int, fps: float, sampling: Sampling
) -> Int[np.ndarray, "k t"]:
    """Return the frames of clips whose starts are independent, uniform over where a clip fits.

    A video shorter than a clip repeats its last frame. `fps` is the video's own rate.
    """
    offsets = _offsets(fps, sampling)
    last = max(0, num_frames - 1 - offsets[-1])
    return _clips(rng.integers(0, last + 1, sampling.clips), offsets, num_frames)


def uniform_clips(num_frames: int, fps: float, sampling: Sampling) -> Int[np.ndarray, "k t"]:
    """Return the frames of evenly spaced clips, the first to the last that fits; one is central.

    A video shorter than a clip repeats its last frame. `fps` is the video's own rate.
    """
    offsets = _offsets(fps, sampling)
    last = max(0, num_frames - 1 - offsets[-1])
    gaps = sampling.clips - 1
    starts = np.arange(sampling.clips) * last // gaps if gaps else np.array([last // 2])
    return _clips(starts, offsets, num_frames)


def windows(num_frames: int, frames: int, stride: int = 1) -> tuple[int, ...]:
    """Return the starts of the whole windows that follow each other without overlap."""
    check.at_least(1, frames=frames, stride=stride)
    span = (frames - 1) * stride + 1
    return tuple(range(0, num_frames - span + 1, frames * stride))


def _offsets(fps: float, sampling: Sampling) -> Int[np.ndarray, " t"]:
    """Return each frame's distance from the clip's first, in the video's own frames."""
    step = float(sampling.stride)
    if sampling.fps:
        check.positive(**{"the video's fps": fps})
        step *= fps / sampling.fps
    return np.floor(np.arange(sampling.frames) * step + 0.5).astype(np.int64)


def _clips(
    starts: Int[np.ndarray, " k"], offsets: Int[np.ndarray, " t"], num_frames: int
) -> Int[np.ndarray, "k t"]:
    check.at_least(1, num_frames=num_frames)
    return np.minimum(starts[:, None] + offsets, num_frames - 1).astype(np.int32)
