"""Which frames make a clip: pure functions of integers, tested without any video."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vrl_jax import check

LAYOUTS = ("independent", "centred", "adjacent", "segments")


@dataclass(frozen=True)
class Sampling:
    """How clips are cut from a video.

    Attributes:
      frames: frames in a clip.
      stride: frames from one to the next, counted at the rate `fps`.
      clips: clips of a video.
      fps: the rate `stride` counts at; 0 is each video's own. With `fps=30`, `stride=4` takes a
        frame every 4/30 s of any video: every 2nd of a 15 fps one.
      layout: of random clips. "independent": starts uniform over where a clip fits. "centred":
        centres uniform over the whole video, whose edges are repeated (DualVar). "adjacent": the
        clips follow each other without a gap (SDC). "segments": one frame of each of `frames`
        equal parts of the video, whatever the stride (TSN).
      max_stride: greatest stride of adjacent clips, which is drawn uniformly from `stride` to this,
        or to what lets them fit; 0 keeps `stride`.
    """

    frames: int = 16
    stride: int = 4
    clips: int = 2
    fps: float = 0.0
    layout: str = "independent"
    max_stride: float = 0.0

    def __post_init__(self) -> None:
        """Refuse counts below one, negative rates and unknown layouts."""
        check.one_of(LAYOUTS, layout=self.layout)
        if self.max_stride and self.layout != "adjacent":
            raise ValueError(f"max_stride is of adjacent clips, but layout is {self.layout!r}")
        check.at_least(0, max_stride=self.max_stride)
        check.at_least(1, frames=self.frames, stride=self.stride, clips=self.clips)
        check.at_least(0, fps=self.fps)


def random_clips(
    rng: np.random.Generator, num_frames: int, fps: float, sampling: Sampling
) -> Int[np.ndarray, "k t"]:
    """Return the frames of clips that are laid out as `sampling.layout` says.

    A video shorter than a clip repeats its last frame. `fps` is the video's own rate.
    """
    if sampling.layout == "adjacent":
        return _adjacent_clips(rng, num_frames, fps, sampling)
    if sampling.layout == "segments":
        return _of_segments(rng.random((sampling.clips, sampling.frames)), num_frames)
    offsets = _offsets(fps, sampling)
    if sampling.layout == "centred":
        middle = offsets[len(offsets) // 2]
        starts = rng.integers(0, num_frames, sampling.clips) - middle
        return np.maximum(_clips(starts, offsets, num_frames), 0)
    last = max(0, num_frames - 1 - offsets[-1])
    return _clips(rng.integers(0, last + 1, sampling.clips), offsets, num_frames)


def uniform_clips(num_frames: int, fps: float, sampling: Sampling) -> Int[np.ndarray, "k t"]:
    """Return the frames of evenly spaced clips, the first to the last that fits; one is central.

    A video shorter than a clip repeats its last frame. `fps` is the video's own rate. With the
    layout "centred" a clip reaches one stride past its last frame, as DualVar counts; with
    "segments" the clips take evenly spaced places in every segment, one its middle.
    """
    gaps = sampling.clips - 1
    if sampling.layout == "segments":
        places = np.arange(sampling.clips) / gaps if gaps else np.full(1, 0.5)
        return _of_segments(np.tile(places[:, None], sampling.frames), num_frames)
    offsets = _offsets(fps, sampling)
    last = max(0, num_frames - 1 - offsets[-1])
    if sampling.layout == "centred":
        last = max(0, num_frames - math.floor(sampling.frames * _step(fps, sampling) + 0.5))
    starts = np.arange(sampling.clips) * last // gaps if gaps else np.array([last // 2])
    return _clips(starts, offsets, num_frames)


def window_starts(num_frames: int, frames: int, stride: int = 1) -> tuple[int, ...]:
    """Return the starts of the whole windows that follow each other without overlap."""
    check.at_least(1, frames=frames, stride=stride)
    span = (frames - 1) * stride + 1
    return tuple(range(0, num_frames - span + 1, frames * stride))


def _adjacent_clips(
    rng: np.random.Generator, num_frames: int, fps: float, sampling: Sampling
) -> Int[np.ndarray, "k t"]:
    """Return clips that follow each other at one drawn rate, which need not be a whole number."""
    total = sampling.clips * sampling.frames
    least = _step(fps, sampling)
    greatest = min(least * sampling.max_stride / sampling.stride, num_frames / total)
    step = rng.uniform(least, greatest) if greatest > least else least
    start = rng.integers(0, max(1, num_frames - math.ceil(step * total) + 1))
    frames = np.floor(start + step * np.arange(total) + 0.5).astype(np.int32)
    return np.minimum(frames, num_frames - 1).reshape(sampling.clips, sampling.frames)


def _of_segments(places: Float[np.ndarray, "k t"], num_frames: int) -> Int[np.ndarray, "k t"]:
    """Return the frame at each place, 0 to 1, of the t equal segments of a video."""
    check.at_least(1, num_frames=num_frames)
    length = num_frames / places.shape[1]
    frames = np.floor((np.arange(places.shape[1]) + places) * length)
    ends = np.ceil((np.arange(places.shape[1]) + 1) * length) - 1
    return np.minimum(frames, ends).astype(np.int32)


def _step(fps: float, sampling: Sampling) -> float:
    """Return the distance of a clip's frames, in the video's own frames."""
    if not sampling.fps:
        return float(sampling.stride)
    check.positive(**{"the video's fps": fps})
    return sampling.stride * fps / sampling.fps


def _offsets(fps: float, sampling: Sampling) -> Int[np.ndarray, " t"]:
    """Return each frame's distance from the clip's first, in the video's own frames."""
    steps = np.arange(sampling.frames) * _step(fps, sampling)
    return np.floor(steps + 0.5).astype(np.int64)


def _clips(
    starts: Int[np.ndarray, " k"], offsets: Int[np.ndarray, " t"], num_frames: int
) -> Int[np.ndarray, "k t"]:
    check.at_least(1, num_frames=num_frames)
    return np.minimum(starts[:, None] + offsets, num_frames - 1).astype(np.int32)
