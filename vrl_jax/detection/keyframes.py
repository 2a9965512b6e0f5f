"""The surroundings of key frames as videos of their own, whole and with their aspect kept.

Nothing here imports JAX.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Never

import av
import numpy as np
from jaxtyping import Float, Int, UInt8

from vrl_jax.data.dataset import FrameReader, VideoError, VideoHandle
from vrl_jax.data.video.decode import ANY_METADATA

REACH = 1 << 20  # frames to either side: more than any clip has


@dataclass(frozen=True)
class UnreadableVideo:
    """A video that is known not to be readable.

    Attributes:
      reason: why.
    """

    reason: str

    def open(self) -> Never:
        """Raise `VideoError`."""
        raise VideoError(self.reason)


@dataclass(frozen=True)
class KeyFrame:
    """A video whose central frame is a key frame of another; its one central clip lies around it.

    Beyond the ends of the whole video its first and last frames are repeated. Frames are read
    whole: scaled until they fit, centred, black beside them.

    Attributes:
      media: the whole video.
      shape: its height and width, pixels.
      time: of the key frame, seconds from the first frame; or the key frame's number, from 0.
      seconds: which of the two.
    """

    media: VideoHandle
    shape: tuple[int, int]
    time: float
    seconds: bool = True

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also where the video has no such frame."""
        with _open_once(self.media) as whole:
            if not whole.fps > 0:
                raise VideoError(f"{self.media}: it does not say how many frames a second has")
            frame = round(self.time * whole.fps if self.seconds else self.time)
            if not 0 <= frame < whole.num_frames:
                raise VideoError(
                    f"{self.media}: key frame {frame} is wanted, but it has {whole.num_frames} "
                    f"frames, {whole.fps:g} a second"
                )
            yield _Around(whole, frame, self.shape)


_KEPT = threading.local()  # the video that a thread read last


@contextmanager
def _open_once(media: VideoHandle) -> Iterator[FrameReader]:
    """Open a video, which the next key frame in this thread finds open: indexing takes long."""
    last, opened, reader = _KEPT.__dict__.pop("video", (None, ExitStack(), None))
    if last != media:
        opened.close()
        opened = ExitStack()
        reader = opened.enter_context(media.open())
    try:
        yield reader
    except BaseException:
        opened.close()
        raise
    _KEPT.video = media, opened, reader


@dataclass(frozen=True)
class _Around:
    whole: FrameReader
    frame: int
    shape: tuple[int, int]

    @property
    def num_frames(self) -> int:
        return 2 * REACH + 1

    @property
    def fps(self) -> float:
        return self.whole.fps

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        wanted = np.clip(frames - REACH + self.frame, 0, self.whole.num_frames - 1)
        top, left, height, width = letterbox(self.shape, size)
        canvas = np.zeros((*frames.shape, *size, 3), np.uint8)
        inside = self.whole.read(wanted, (height, width))
        canvas[:, :, top : top + height, left : left + width] = inside
        return canvas


def letterbox(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a frame scaled to fit into `size`, centred."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def letterbox_boxes(
    boxes: Float[np.ndarray, "n 4"], shape: tuple[int, int], size: tuple[int, int]
) -> Float[np.ndarray, "n 4"]:
    """Return boxes of a frame as boxes of the canvas that it is fitted into, both normalised."""
    top, left, height, width = letterbox(shape, size)
    scale = np.array([width / size[1], height / size[0]] * 2)
    return boxes * scale + np.array([left / size[1], top / size[0]] * 2)


def frame_size(path: str) -> tuple[int, int]:
    """Return height and width of a video's upright picture; raises `VideoError`."""
    try:
        with av.open(path, **ANY_METADATA) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise VideoError(f"{path}: {getattr(error, 'strerror', '') or 'no frame'}") from error
    turned = round(frame.rotation / 90) % 2
    return (frame.width, frame.height) if turned else (frame.height, frame.width)
