"""Frame indices of clips: pure functions of integers, tested without any video."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vrl_jax import check

LAYOUTS = ("independent", "centred", "adjacent", "segments")


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled from a video.

    Attributes:
      frames: frames in a clip.
      stride: distance between consecutive frames of a clip, counted at the rate `fps`.
      clips: number of clips sampled from a video.
      fps: the rate at which `stride` counts; 0 is each video's own. With `fps=30`, `stride=4` takes
        a frame every 4/30 s of any video, which is every 2nd frame of a 15 fps video.
      layout: how random clips are placed. "independent": start uniform over all starts at which a
        clip fits. "centred": center uniform over the whole video, edges repeated (DualVar).
        "adjacent": consecutive clips without a gap (SDC). "segments": one frame from each of
        `frames` equal segments of the video, whatever the stride (TSN).
      max_stride: maximum stride of adjacent clips. The stride is drawn uniformly from `stride` to
        `max_stride`, or to the largest stride at which the clips fit; 0 fixes it to `stride`.
      reach_end: evenly spaced clips reach the end of the video. Those of the large-scale study
        (arXiv 2104.14558) do not: clip i of k starts at i / k of the room, and with "segments" at
        i / k of every segment.
    """

    frames: int = 16
    stride: int = 4
    clips: int = 2
    fps: float = 0.0
    layout: str = "independent"
    max_stride: float = 0.0
    reach_end: bool = True

    def __post_init__(self) -> None:
        """Check counts, rates and layout."""
        check.one_of(LAYOUTS, layout=self.layout)
        if self.max_stride and self.layout != "adjacent":
            raise ValueError(
                f"max_stride needs layout='adjacent', got {self.layout!r}: set max_stride=0"
            )
        check.at_least(0, max_stride=self.max_stride)
        check.at_least(1, frames=self.frames, stride=self.stride, clips=self.clips)
        check.at_least(0, fps=self.fps)


def random_clips(
    rng: np.random.Generator, num_frames: int, fps: float, sampling: Sampling
) -> Int[np.ndarray, "k t"]:
    """Return the frame indices of random clips, placed as `sampling.layout` says.

    The last frame is repeated in videos shorter than a clip. `fps` is the video's own frame rate.
    """
    if sampling.layout == "adjacent":
        return _adjacent_clips(rng, num_frames, fps, sampling)
    if sampling.layout == "segments":
        return _segment_frames(rng.random((sampling.clips, sampling.frames)), num_frames)
    offsets = _offsets(fps, sampling)
    if sampling.layout == "centred":
        middle = offsets[len(offsets) // 2]
        starts = rng.integers(0, num_frames, sampling.clips) - middle
        return np.maximum(_clips(starts, offsets, num_frames), 0)
    last = max(0, num_frames - 1 - offsets[-1])
    return _clips(rng.integers(0, last + 1, sampling.clips), offsets, num_frames)


def uniform_clips(num_frames: int, fps: float, sampling: Sampling) -> Int[np.ndarray, "k t"]:
    """Return the frame indices of evenly spaced clips, from the first to the last that fits.

    A single clip is central, unless `sampling.reach_end` is False. The last frame is repeated in
    videos shorter than a clip. `fps` is the video's own frame rate. With the layout "centred" a
    clip extends one stride past its last frame, as DualVar counts; with "segments" the clips take
    evenly spaced positions in every segment, and a single clip takes the middle.
    """
    gaps = sampling.clips - 1 if sampling.reach_end else sampling.clips
    if sampling.layout == "segments":
        positions = np.arange(sampling.clips) / gaps if gaps else np.full(1, 0.5)
        return _segment_frames(np.tile(positions[:, None], sampling.frames), num_frames)
    offsets = _offsets(fps, sampling)
    last = max(0, num_frames - 1 - offsets[-1])
    if sampling.layout == "centred":
        last = max(0, num_frames - math.floor(sampling.frames * _step(fps, sampling) + 0.5))
    starts = np.arange(sampling.clips) * last // gaps if gaps else np.array([last // 2])
    return _clips(starts, offsets, num_frames)


def window_starts(num_frames: int, frames: int, stride: int = 1) -> tuple[int, ...]:
    """Return the first frames of non-overlapping windows; an incomplete last one is dropped."""
    check.at_least(1, frames=frames, stride=stride)
    span = (frames - 1) * stride + 1
    return tuple(range(0, num_frames - span + 1, frames * stride))


def _adjacent_clips(
    rng: np.random.Generator, num_frames: int, fps: float, sampling: Sampling
) -> Int[np.ndarray, "k t"]:
    """Return consecutive clips at one random stride, which need not be an integer."""
    total = sampling.clips * sampling.frames
    minimum = _step(fps, sampling)
    maximum = min(minimum * sampling.max_stride / sampling.stride, num_frames / total)
    step = rng.uniform(minimum, maximum) if maximum > minimum else minimum
    start = rng.integers(0, max(1, num_frames - math.ceil(step * total) + 1))
    frames = np.floor(start + step * np.arange(total) + 0.5).astype(np.int32)
    return np.minimum(frames, num_frames - 1).reshape(sampling.clips, sampling.frames)


def _segment_frames(positions: Float[np.ndarray, "k t"], num_frames: int) -> Int[np.ndarray, "k t"]:
    """Return the frames at relative positions, 0 to 1, in the t equal segments of a video."""
    check.at_least(1, num_frames=num_frames)
    length = num_frames / positions.shape[1]
    frames = np.floor((np.arange(positions.shape[1]) + positions) * length)
    ends = np.ceil((np.arange(positions.shape[1]) + 1) * length) - 1
    return np.minimum(frames, ends).astype(np.int32)


def _step(fps: float, sampling: Sampling) -> float:
    """Return the stride in the video's own frames."""
    if not sampling.fps:
        return float(sampling.stride)
    check.positive(**{"the video's fps": fps})
    return sampling.stride * fps / sampling.fps


def _offsets(fps: float, sampling: Sampling) -> Int[np.ndarray, " t"]:
    """Return the offsets of a clip's frames from its first, in the video's own frames."""
    steps = np.arange(sampling.frames) * _step(fps, sampling)
    return np.floor(steps + 0.5).astype(np.int64)


def _clips(
    starts: Int[np.ndarray, " k"], offsets: Int[np.ndarray, " t"], num_frames: int
) -> Int[np.ndarray, "k t"]:
    check.at_least(1, num_frames=num_frames)
    return np.minimum(starts[:, None] + offsets, num_frames - 1).astype(np.int32)
