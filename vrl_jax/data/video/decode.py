"""Frames from video files: exact by number, only those wanted, resized while converted.

Frame `i` is the i-th frame that the decoder puts out. Time stamps name the same frame only in
mov/mp4 and matroska/webm, and only with care; there a keyframe seek saves most of the decoding.
AVI and MPEG-PS store no stamps (FFmpeg guesses, wrongly with B-frames): they decode from the start.

Pixels are taken as square (stored aspect ratios are ignored, as every loader does). Never call
`av.logging.set_level` in a program that decodes in threads: it can deadlock on damaged files.
"""

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Int, UInt8

from vrl_jax import check
from vrl_jax.data import storage
from vrl_jax.data.dataset import FrameReader, VideoError, VideoHandle

# What a video may hold in memory when it has to be decoded from its start.
MAX_HELD_BYTES = 4 << 30
# Titles and the like may be in any encoding: HMDB51 has some that are not UTF-8. PyAV 19 takes them
# as they are and no longer knows the option.
ANY_METADATA = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


@dataclass(frozen=True)
class VideoFile:
    """A video in a file of any format that FFmpeg reads.

    A file that was cut off counts the frames before the cut. Damage inside a file shows when a
    frame behind it is read: that raises `VideoError`.

    Attributes:
      path: where it is; on an object store it is read whole.
    """

    path: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        if storage.is_remote(self.path):
            with _blame(self.path):
                data = storage.read_remote(self.path)
            opened = VideoBytes(self.path, data).open()
        else:
            opened = closing(_FileReader(self.path, lambda: self.path))
        with opened as reader:
            yield reader


@dataclass(frozen=True)
class VideoBytes:
    """A video file held in memory, as record and tar shards have it.

    Attributes:
      name: what errors call it.
      data: the whole file.
    """

    name: str
    data: bytes = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with closing(_FileReader(self.name, lambda: io.BytesIO(self.data))) as reader:
            yield reader


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a video, as a video of its own: its frame 0 is frame `start` of the whole.

    Attributes:
      media: the whole video.
      start: first frame.
      stop: one past the last frame.
    """

    media: VideoHandle
    start: int
    stop: int

    def __post_init__(self) -> None:
        """Refuse an empty stretch."""
        check.at_least(0, start=self.start)
        check.at_least(self.start + 1, stop=self.stop)

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also where the video ends before `stop`."""
        with self.media.open() as whole:
            if whole.num_frames < self.stop:
                raise VideoError(f"{self}: the video has only {whole.num_frames} frames")
            yield _ExcerptReader(whole, self)


class _ExcerptReader:
    def __init__(self, whole: FrameReader, excerpt: Excerpt) -> None:
        self.num_frames = excerpt.stop - excerpt.start
        self.fps = whole.fps
        self._whole, self._excerpt = whole, excerpt

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        refuse_outside(str(self._excerpt), frames, self.num_frames)
        return self._whole.read(frames + self._excerpt.start, size)


class _Index(NamedTuple):
    """Where the frames of a file are.

    Attributes:
      stamps: frame number to time stamp.
      numbers: time stamp to frame number.
      keys: time stamps of the keyframes, ascending.
      seeks: what to seek to for each of them.
    """

    stamps: Int[np.ndarray, " n"]
    numbers: dict[int, int]
    keys: Int[np.ndarray, " m"]
    seeks: Int[np.ndarray, " m"]


class _FileReader:
    """An open file: seeks by `_index` where stamps number the frames, else holds all frames."""

    def __init__(self, name: str, file: Callable[[], str | io.BytesIO]) -> None:
        self._name, self._file = name, file
        self._reformatter = VideoReformatter()
        self._held: list[av.VideoFrame] = []
        with _blame(name):
            self._container = _open(file())
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self._container.close()

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        refuse_outside(self._name, frames, self.num_frames)
        with _blame(self._name):
            found = self._fetch(np.unique(frames))
            images = {
                number: convert_frame(found[number], size, self._reformatter) for number in found
            }
        clips = np.stack([images[number] for number in frames.flat])
        return clips.reshape(*frames.shape, *clips.shape[1:])

    def _fetch(self, wanted: Int[np.ndarray, " n"]) -> dict[int, av.VideoFrame]:
        if not self._held:
            found = self._seek(wanted)
            if found is not None:
                return found
            self._start_anew()
            refuse_outside(self._name, wanted, self.num_frames)
        return {number: self._held[number] for number in wanted.tolist()}

    def _prepare(self) -> None:
        if not self._container.streams.video:
            raise VideoError(f"{self._name}: it has no video stream")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            raise VideoError(f"{self._name}: there is no decoder for its video")
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        if not _stamps_number(self._container, self._stream):
            self._hold(self._container)
            return
        self._index = _scan(self._container, self._stream)
        if self._index and self._seek(np.array([0])):
            self.num_frames = len(self._index.stamps)
        else:
            self._start_anew()

    def _seek(self, wanted: Int[np.ndarray, " n"]) -> dict[int, av.VideoFrame] | None:
        """Return the wanted frames (ascending), or None where the file belies its index."""
        keys = np.searchsorted(self._index.keys, self._index.stamps[wanted], side="right") - 1
        if keys[0] < 0:
            return None
        found = {}
        # One seek serves neighbouring keyframes: going on is cheaper than starting anew.
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(keys) > 1) + 1):
            target, missing = int(self._index.seeks[keys[run[0]]]), set(wanted[run].tolist())
            try:
                self._container.seek(target, stream=self._stream, backward=True)
                for frame in self._container.decode(self._stream):
                    if frame.pts not in self._index.numbers:
                        return None
                    number = self._index.numbers[frame.pts]
                    if number in missing:
                        missing.remove(number)
                        found[number] = frame
                    if not missing:
                        break
            except av.FFmpegError:
                return None
            if missing:
                return None
        return found

    def _start_anew(self) -> None:
        """Hold the frames of the file opened again: packets of the open container were read."""
        with _open(self._file()) as container:
            self._hold(container)

    def _hold(self, container: av.container.InputContainer) -> None:
        """Decode from the start and keep every frame up to the end or the first damage."""
        damage, size = "the stream is empty", 0
        try:
            for frame in container.decode(container.streams.video[0]):
                self._held.append(frame)
                size += sum(plane.buffer_size for plane in frame.planes)
                if size > MAX_HELD_BYTES:
                    raise VideoError(
                        f"{self._name}: more than {MAX_HELD_BYTES} bytes of frames, in a "
                        "format that decodes only from the start: transcode it to mp4"
                    )
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise  # which says nothing of the file
            damage = error.strerror
        if not self._held:
            raise VideoError(f"{self._name}: no frame decodes: {damage}")
        self.num_frames = len(self._held)


def _open(file: str | io.BytesIO) -> av.container.InputContainer:
    container = av.open(file, **ANY_METADATA)
    for stream in container.streams.video:
        if stream.codec_context:
            stream.codec_context.thread_count = 1  # parallelism is the loader's
    return container


@contextmanager
def _blame(name: str) -> Iterator[None]:
    """Turn what FFmpeg and the file system raise into a `VideoError` that names the video."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{name}: {error.strerror or error}") from error


def refuse_outside(name: str, frames: Int[np.ndarray, "..."], num_frames: int) -> None:
    """Raise `VideoError` where a frame is wanted that does not exist."""
    if frames.min() < 0 or frames.max() >= num_frames:
        raise VideoError(
            f"{name}: frames {frames.min()} to {frames.max()} are wanted, "
            f"but only frames 0 to {num_frames - 1} decode"
        )


def _stamps_number(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> bool:
    """Whether time stamps can number the frames of this format and codec; reads nothing."""
    if not container.format.name.startswith(("mov", "matroska")):
        return False
    # x264's 4:4:4 needs what the first packet says of the encoder.
    codec = stream.codec_context
    return codec.name != "h264" or "444" not in (codec.pix_fmt or "")


def _scan(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> _Index | None:
    """Read all packets (no decoding); None where time stamps do not number the frames."""
    mov, codec = container.format.name.startswith("mov"), stream.codec_context.name
    stamps, keys = [], []
    for packet in container.demux(stream):
        if not packet.size:
            continue  # the end
        hidden = codec == "vp8" and not memoryview(packet)[0] & 0x10  # puts out no frame
        if packet.pts is None or packet.is_corrupt or hidden:
            return None
        if not packet.is_discard:  # an edit list may cut frames away, keyframes too
            stamps.append(packet.pts)
        if packet.is_keyframe:
            # The mov demuxer compares its target with decoding times.
            keys.append((packet.pts, packet.dts if mov else packet.pts))
    numbers = {stamp: number for number, stamp in enumerate(sorted(stamps))}
    if not keys or not numbers or len(numbers) < len(stamps):
        return None
    keys = np.array(sorted(keys))
    return _Index(np.array(list(numbers)), numbers, keys[:, 0], keys[:, 1])


def convert_frame(
    frame: av.VideoFrame, size: tuple[int, int], reformatter: VideoReformatter
) -> UInt8[np.ndarray, "h w 3"]:
    """Return upright RGB: scaled to cover `size` (height, width), then cut at the centre."""
    turns = round(frame.rotation / 90)
    h, w = size[::-1] if turns % 2 else size
    scale = max(h / frame.height, w / frame.width)
    height, width = max(h, round(frame.height * scale)), max(w, round(frame.width * scale))
    image = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    top, left = (height - h) // 2, (width - w) // 2
    return np.rot90(image[top : top + h, left : left + w], turns)
