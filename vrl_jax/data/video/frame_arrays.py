"""Videos whose frames are arrays in memory: drawn, or unpacked from a file.

Nothing here imports JAX.
"""

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Int, UInt8

from vrl_jax.data.video.video_decoder import check_frames_exist, scale_pixels
from vrl_jax.data.video_dataset import FrameReader, VideoError

# NumPy parses headers with `ast`, which in Python 3.11 fails at times if threads do so at once and
# garbage collection calls back, as it does with JAX.
_HEADERS = threading.Lock()


class ArrayReader:
    """An open video whose frames are an array.

    Args:
      name: of the video, for errors.
      pixels: all frames.
      fps: frames per second.
    """

    def __init__(self, name: str, pixels: UInt8[np.ndarray, "n h w 3"], fps: float) -> None:
        self.num_frames, self.fps = len(pixels), fps
        self._name, self._pixels, self._reformatter = name, pixels, VideoReformatter()

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        """Return frames, scaled to cover (height, width) `size` and center-cropped."""
        check_frames_exist(self._name, frames, self.num_frames)
        return scale_pixels(self._pixels.__getitem__, frames, size, self._reformatter)


@dataclass(frozen=True)
class MaskFile:
    """Foreground masks of a video, one bit a pixel.

    `np.savez(path, mask=np.packbits(mask, axis=-1), shape=mask.shape)` writes a bool[n h w] mask.

    Attributes:
      path: the `.npz` file.
      fps: frames per second of the video.
    """

    path: str
    fps: float

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading, white on the foreground; raises `VideoError`."""
        try:
            with _HEADERS, open(self.path, "rb") as file, np.load(file) as arrays:
                shape = arrays["shape"]
                mask = np.unpackbits(arrays["mask"], axis=-1)[..., : shape[-1]].reshape(shape)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise VideoError(f"{self.path}: {error}") from error
        pixels = np.broadcast_to(255 * mask[..., None], (*mask.shape, 3))
        yield ArrayReader(self.path, pixels, self.fps)
