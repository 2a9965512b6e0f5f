"""Videos whose background is replaced: is it the foreground's motion that an encoder looks at?

SCUBA puts the masked foreground of a test video over a background that says nothing of its class,
and SCUFO repeats one frame of that, so that neither background nor motion is left (Li et al., ICCV
2023, arXiv 2211.12883). Known of the originals: backgrounds are photographs, generated images or
sinusoidal stripes, still for the whole video, and SCUFO's frame is drawn at random, which changes
accuracies by less than one point. Ours are such stripes, drawn anew by us, and frames of videos of
other classes; SCUFO's frame is the middle one.

Nothing here imports JAX.
"""

import math
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vrl_jax.data.dataset import (
    FrameReader,
    Video,
    VideoDataset,
    VideoError,
    VideoHandle,
    VideoList,
)
from vrl_jax.data.datasets.file_lists import locate_videos, need_folder


def clip_generator(clip: UInt8[np.ndarray, "t h w 3"], seed: int) -> np.random.Generator:
    """Return random numbers of a clip's own, whatever batch or host it is in."""
    return np.random.default_rng((seed, zlib.crc32(np.ascontiguousarray(clip))))


def draw_stripes(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw bands along a sine wave, in a colour and its complement.

    Colour, angle, width, spacing, and the wave's length, height and phase are random, in the ranges
    of the published script, whose unit is 1/256 of the image's side.
    """
    colour, turn = rng.random(3), math.tau * rng.random()
    thickness = 2 * rng.uniform(5, 20)
    spacing = rng.uniform(3, 5) / 2 * thickness
    wavelength, height, phase = rng.uniform(4, 1004), rng.uniform(10, 110), math.tau * rng.random()
    y, x = np.indices(size) * 256 / max(size)
    along = x * math.cos(turn) + y * math.sin(turn)
    across = y * math.cos(turn) - x * math.sin(turn)
    across += height * np.sin(math.tau * along / wavelength + phase)
    band = (across % spacing < thickness)[..., None]
    return np.round(255 * np.where(band, 1 - colour, colour)).astype(np.uint8)


def paste_on_stripes(
    clip: UInt8[np.ndarray, "t h w 3"], mask: Bool[np.ndarray, "t h w"], seed: int
) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the clip where its mask is, and stripes of its own elsewhere."""
    return np.where(
        mask[..., None], clip, draw_stripes(clip_generator(clip, seed), clip.shape[1:3])
    )


def load_masks(folder: str, source: VideoDataset) -> VideoList:
    """Return the mask videos of a source's videos, in its order.

    Each is a video file or a zip of images, white where the foreground is, named after the video's
    id, with any extension. One that is absent, or has another number of frames than its video,
    raises `VideoError` when it is opened: then the video is not judged by its foreground.

    Raises:
      ValueError: there is no such folder.
    """
    videos = [source[index] for index in range(len(source))]
    rows = [(video.id, 0, (video.id.lstrip("/"),)) for video in videos]
    found = locate_videos(need_folder("masks", folder), rows, ("mask",))
    paired = zip(videos, found.videos, strict=True)
    return _beside(source, [AlignedMask(mask.media, video.media) for video, mask in paired])


def background_stills(source: VideoDataset, seed: int) -> VideoList:
    """Return for each video the still of another one, drawn from those that share no label.

    Where every other video shares one, it is drawn from those that share fewest.
    """
    videos = [source[index] for index in range(len(source))]
    labels = {name: np.array([video.labels[name] for video in videos]) for name in source.classes}
    donors = draw_dissimilar(labels, seed)
    return _beside(source, [StillVideo(videos[donor].media) for donor in donors])


def draw_dissimilar(labels: Mapping[str, Int[np.ndarray, "n"]], seed: int) -> Int[np.ndarray, "n"]:
    """Return for each item another one, at random from those that share fewest labels with it."""
    rng = np.random.default_rng(seed)
    count = len(next(iter(labels.values())))
    chosen = np.empty(count, int)
    for item in range(count):
        shared = sum((numbers == numbers[item]).astype(int) for numbers in labels.values())
        shared[item] = len(labels) + 1
        chosen[item] = rng.choice(np.flatnonzero(shared == shared.min()))
    return chosen


@dataclass(frozen=True)
class AlignedMask:
    """A mask video that has the length and the rate of the video that it masks.

    Attributes:
      media: the mask.
      video: what it masks.
    """

    media: VideoHandle
    video: VideoHandle

    @contextmanager
    def open(self):
        """Open for reading; raises `VideoError` where the two have different lengths."""
        with self.video.open() as whole, self.media.open() as mask:
            if mask.num_frames != whole.num_frames:
                raise VideoError(
                    f"{self.media} has {mask.num_frames} frames, the video that it masks has "
                    f"{whole.num_frames}"
                )
            yield _Rated(mask, whole.fps)


class _Rated:
    """A reader with a rate that another one knows."""

    def __init__(self, reader: FrameReader, fps: float) -> None:
        self.num_frames, self.fps, self.read = reader.num_frames, fps, reader.read


@dataclass(frozen=True)
class StillVideo:
    """A video of which every clip shows its middle frame alone.

    Attributes:
      media: the video.
    """

    media: VideoHandle

    @contextmanager
    def open(self):
        """Open for reading; raises `VideoError`."""
        with self.media.open() as reader:
            yield _Holding(reader)


class _Holding:
    def __init__(self, reader: FrameReader) -> None:
        self.num_frames, self.fps, self._reader = reader.num_frames, reader.fps, reader

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        middle = frames.shape[1] // 2
        return np.repeat(
            self._reader.read(frames[:, middle : middle + 1], size), frames.shape[1], axis=1
        )


def _beside(source: VideoDataset, media: list[VideoHandle]) -> VideoList:
    """Return a source with the same ids and labels and other media."""
    videos = [source[index] for index in range(len(source))]
    paired = zip(videos, media, strict=True)
    shown = tuple(Video(video.id, other, video.labels) for video, other in paired)
    return VideoList(shown, source.classes, source.mirror_safe)
