"""Clips around key frames, letterboxed to preserve the aspect ratio.

This module does not import JAX.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Never

import numpy as np
from jaxtyping import Float, Int, UInt8

from vrl_jax.data.video.video_decoder import DAMAGE, open_video, upright_size
from vrl_jax.data.video_dataset import FrameReader, HasTimes, VideoError, VideoHandle

REACH = 1 << 20  # frames before and after a key frame, more than any clip has


@dataclass(frozen=True)
class UnreadableVideo:
    """A video that cannot be read.

    Attributes:
      reason: of the failure.
    """

    reason: str

    def open(self) -> Never:
        """Raise `VideoError`."""
        raise VideoError(self.reason)


@dataclass(frozen=True)
class KeyFrame:
    """A virtual video whose central frame is a key frame of another video.

    Its central clip is the clip around the key frame. Beyond the ends of the other video, the first
    and last frames are repeated. Frames are letterboxed: scaled to fit, centred, black borders.

    Attributes:
      media: the other video.
      shape: its height and width in pixels.
      time: of the key frame, in seconds from the first frame, or its index, from 0.
      seconds: whether `time` is in seconds.
    """

    media: VideoHandle
    shape: tuple[int, int]
    time: float
    seconds: bool = True

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also where the key frame does not exist."""
        with _open_cached(self.media) as video:
            if not video.fps > 0:
                raise VideoError(f"{self.media}: it has no frame rate")
            frame = _find_frame(video, self.time) if self.seconds else round(self.time)
            if not 0 <= frame < video.num_frames:
                raise VideoError(
                    f"{self.media}: key frame {frame} is outside of the video, which has "
                    f"{video.num_frames} frames at {video.fps:g} per second"
                )
            yield _KeyFrameReader(video, frame, self.shape)


def _find_frame(video: FrameReader, time: float) -> int:
    """Return the number of the frame that is closest in time; out of range outside of the video."""
    if not isinstance(video, HasTimes):
        return round(time * video.fps)
    inside = min(max(time, 0.0), video.times[-1])
    closest = int(np.abs(video.times - inside).argmin())
    return closest + round((time - inside) * video.fps)


_CACHE = threading.local()  # the video that each thread read last


@contextmanager
def _open_cached(media: VideoHandle) -> Iterator[FrameReader]:
    """Open a video and keep it open for the next key frame in this thread: indexing is slow."""
    last, opened, reader = _CACHE.__dict__.pop("video", (None, ExitStack(), None))
    if last != media:
        opened.close()
        opened = ExitStack()
        reader = opened.enter_context(media.open())
    try:
        yield reader
    except BaseException:
        opened.close()
        raise
    _CACHE.video = media, opened, reader


@dataclass(frozen=True)
class _KeyFrameReader:
    video: FrameReader
    frame: int
    shape: tuple[int, int]

    @property
    def num_frames(self) -> int:
        return 2 * REACH + 1

    @property
    def fps(self) -> float:
        return self.video.fps

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        indices = np.clip(frames - REACH + self.frame, 0, self.video.num_frames - 1)
        top, left, height, width = letterbox(self.shape, size)
        canvas = np.zeros((*frames.shape, *size, 3), np.uint8)
        inside = self.video.read(indices, (height, width))
        canvas[:, :, top : top + height, left : left + width] = inside
        return canvas


def letterbox(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a frame that is scaled to fit `size` and centred."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def letterbox_boxes(
    boxes: Float[np.ndarray, "n 4"], shape: tuple[int, int], size: tuple[int, int]
) -> Float[np.ndarray, "n 4"]:
    """Return boxes relative to a frame as boxes relative to its letterboxed canvas."""
    top, left, height, width = letterbox(shape, size)
    scale = np.array([width / size[1], height / size[0]] * 2)
    return boxes * scale + np.array([left / size[1], top / size[0]] * 2)


def frame_size(path: str) -> tuple[int, int]:
    """Return height and width of a video's frames after rotation; raises `VideoError`."""
    try:
        container, streams = open_video(path)
        with container:
            return upright_size(next(container.decode(streams[0])))
    except (*DAMAGE, OSError, StopIteration) as error:
        raise VideoError(f"{path}: {getattr(error, 'strerror', '') or 'no frame'}") from error
