"""Exact frames of video files by number, resized during conversion to RGB.

Frame `i` is the i-th frame that the decoder outputs. Time stamps identify frames reliably only in
mov/mp4 and matroska/webm, where seeking to a keyframe saves most of the decoding. AVI and MPEG-PS
store no time stamps (FFmpeg guesses them, wrongly with B-frames), so they are decoded from the
start.

Pixels are assumed square; stored aspect ratios are ignored, as in other loaders. Never call
`av.logging.set_level` in a program that decodes in threads: it can deadlock on damaged files.
"""

import errno
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from jaxtyping import Int, UInt8

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.video_dataset import FrameReader, HasTimes, VideoError, VideoHandle

# Memory limit for the frames of a video that has to be decoded from the start.
MAX_CACHED_BYTES = 4 << 30
# Metadata may have any encoding, and some of HMDB51 is not UTF-8. PyAV 19 accepts it and no longer
# has the option.
ANY_METADATA = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
# PyAV raises IndexError where a file has streams that its head does not state, as damaged ones do.
DAMAGE = (av.FFmpegError, IndexError)
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True)
class VideoFile:
    """A video file of any format that FFmpeg reads.

    A truncated file has the frames before the cut. Reading a frame after damage inside a file
    raises `VideoError`.

    Attributes:
      path: path of the file, which is read as a whole from object stores.
    """

    path: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        if remote_paths.is_remote(self.path):
            with _video_errors(self.path):
                data = remote_paths.read_remote(self.path)
            opened = VideoBytes(self.path, data).open()
        else:
            opened = closing(_FileReader(self.path))
        with opened as reader:
            yield reader


@dataclass(frozen=True)
class VideoBytes:
    """A video file in memory, as in record and tar shards.

    Attributes:
      name: name of the video in errors.
      data: content of the file.
    """

    name: str
    data: bytes = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with closing(_FileReader(self.name, self.data)) as reader:
            yield reader


@dataclass(frozen=True)
class Excerpt:
    """A range of frames as a video of its own, whose frame 0 is frame `start` of the whole video.

    Attributes:
      media: the whole video.
      start: first frame.
      stop: last frame + 1.
    """

    media: VideoHandle
    start: int
    stop: int

    def __post_init__(self) -> None:
        """Check that the range is not empty."""
        check.at_least(0, start=self.start)
        check.at_least(self.start + 1, stop=self.stop)

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also if the video ends before `stop`."""
        with self.media.open() as whole:
            if whole.num_frames < self.stop:
                raise VideoError(f"{self}: the video has only {whole.num_frames} frames")
            yield _ExcerptReader(whole, self)


class _ExcerptReader:
    def __init__(self, whole: FrameReader, excerpt: Excerpt) -> None:
        self.num_frames = excerpt.stop - excerpt.start
        self.fps = whole.fps
        if isinstance(whole, HasTimes):
            times = whole.times[excerpt.start : excerpt.stop]
            self.times = times - times[0]
        self._whole, self._excerpt = whole, excerpt

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        check_frames_exist(str(self._excerpt), frames, self.num_frames)
        return self._whole.read(frames + self._excerpt.start, size)


class _Index(NamedTuple):
    """Time stamps of the frames of a file.

    Attributes:
      stamps: time stamp of each frame.
      numbers: time stamp to frame number.
      keys: time stamps of the keyframes, ascending.
      seeks: seek target of each keyframe.
    """

    stamps: Int[np.ndarray, " n"]
    numbers: dict[int, int]
    keys: Int[np.ndarray, " m"]
    seeks: Int[np.ndarray, " m"]


class _FileReader:
    """An open file: seeks where time stamps identify frames, else caches all frames."""

    def __init__(self, name: str, data: bytes | None = None) -> None:
        self._name, self._data = name, data
        self._reformatter = VideoReformatter()
        self._cached: list[av.VideoFrame] = []
        with _video_errors(name):
            self._container, streams = open_video(name, data)
            self._stream = streams[0]
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
        check_frames_exist(self._name, frames, self.num_frames)
        with _video_errors(self._name):
            decoded = self._fetch(np.unique(frames))
            images = {
                number: convert_frame(frame, size, self._reformatter)
                for number, frame in decoded.items()
            }
        clips = np.stack([images[number] for number in frames.flat])
        return clips.reshape(*frames.shape, *clips.shape[1:])

    def _fetch(self, numbers: Int[np.ndarray, " n"]) -> dict[int, av.VideoFrame]:
        if not self._cached:
            decoded = self._seek(numbers)
            if decoded is not None:
                return decoded
            self._reopen_and_cache()
            if numbers[-1] >= self.num_frames:
                raise VideoError(
                    f"{self._name}: no frame after {self.num_frames - 1} can be decoded"
                )
        return {number: self._cached[number] for number in numbers.tolist()}

    def _prepare(self) -> None:
        if self._stream.codec_context is None:
            raise VideoError(f"{self._name}: there is no decoder for its video")
        if not _has_reliable_stamps(self._container, self._stream):
            self._cache(self._container)
            return
        self._index = _scan(self._container, self._stream)
        if self._index and self._seek(np.array([0])):
            self._set_times(self._index.stamps)
        else:
            self._reopen_and_cache()

    def _seek(self, numbers: Int[np.ndarray, " n"]) -> dict[int, av.VideoFrame] | None:
        """Return frames by ascending number, or None if the file contradicts its index."""
        keys = np.searchsorted(self._index.keys, self._index.stamps[numbers], side="right") - 1
        if keys[0] < 0:
            return None
        decoded = {}
        # One seek for consecutive keyframes: decoding on is cheaper than seeking again.
        for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(keys) > 1) + 1):
            target, missing = int(self._index.seeks[keys[run[0]]]), set(numbers[run].tolist())
            try:
                self._container.seek(target, stream=self._stream, backward=True)
                for frame in self._container.decode(self._stream):
                    if frame.pts not in self._index.numbers:
                        return None
                    number = self._index.numbers[frame.pts]
                    if number in missing:
                        missing.remove(number)
                        decoded[number] = frame
                    if not missing:
                        break
            except DAMAGE:
                return None
            if missing:
                return None
        return decoded

    def _reopen_and_cache(self) -> None:
        """Open the file again and cache its frames; packets of the open container were read."""
        with _open(self._name, self._data) as container:
            self._cache(container)

    def _cache(self, container: av.container.InputContainer) -> None:
        """Decode from the start and cache all frames up to the end or the first damage."""
        damage, size = "the stream is empty", 0
        try:
            for frame in container.decode(container.streams[self._stream.index]):
                self._cached.append(frame)
                size += sum(plane.buffer_size for plane in frame.planes)
                if size > MAX_CACHED_BYTES:
                    raise VideoError(
                        f"{self._name}: more than {MAX_CACHED_BYTES} bytes of frames, in a "
                        "format that decodes only from the start: transcode it to mp4"
                    )
        except DAMAGE as error:
            if getattr(error, "errno", 0) == errno.ENOMEM:
                raise  # out of memory, not a damaged file
            damage = getattr(error, "strerror", "") or str(error)
        if not self._cached:
            raise VideoError(f"{self._name}: no frame can be decoded: {damage}")
        self._set_times([frame.pts for frame in self._cached])

    def _set_times(self, stamps: Sequence[int | None] | Int[np.ndarray, " n"]) -> None:
        """Set the number of frames, their times in seconds from the first, and the frame rate."""
        self.num_frames = len(stamps)
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        ticks = np.array(stamps, float)  # NaN where there is none
        steps = np.diff(ticks)
        if np.isnan(ticks).any() or (steps <= 0).any():  # such as H.264 in AVI
            self.times = np.arange(self.num_frames) / (self.fps or math.nan)
            return
        unit = float(self._stream.time_base)
        self.times = (ticks - ticks[0]) * unit
        # Matroska need not state a rate, and FFmpeg then returns the unit of the time stamps. A
        # true rate fits most frames: some may be lost, and a recording may pause.
        if steps.size and not abs(np.sort(steps)[steps.size // 2] * unit * self.fps - 1) < 0.1:
            self.fps = float(steps.size / self.times[-1])


def open_video(
    name: str, data: bytes | None = None
) -> tuple[av.container.InputContainer, list[av.VideoStream]]:
    """Open a file that decodes in one thread, and return its video streams, the best one first.

    Cover art and thumbnails are no videos. The best stream is the one with the largest frames; of
    equal ones the default. Streams of a single frame and of none come last.

    Args:
      name: path of the file, or name of the video in errors.
      data: content of the file, if it is in memory.

    Raises:
      VideoError: the file has no video stream.
    """
    container = _open(name, data)
    streams = [stream for stream in container.streams.video if not stream.disposition & PICTURES]
    if not streams:
        container.close()
        raise VideoError(f"{name}: it has no video stream")
    if len(streams) > 1:
        packets = _count_packets(name, data, streams)

        def rank(stream: av.VideoStream) -> tuple:
            codec = stream.codec_context
            pixels = codec.width * codec.height if codec else -1
            count = min(packets[stream.index], 2)
            return count, pixels, bool(stream.disposition & Disposition.default)

        streams.sort(key=rank, reverse=True)
    return container, streams


def _count_packets(
    name: str, data: bytes | None, streams: Sequence[av.VideoStream]
) -> Counter[int]:
    """Return the number of packets of each stream, by index, up to at least two of each."""
    packets = Counter()
    with _open(name, data) as container, suppress(*DAMAGE):
        for packet in container.demux([stream.index for stream in streams]):
            packets[packet.stream.index] += packet.size > 0
            if all(packets[stream.index] > 1 for stream in streams):
                break
    return packets


def _open(name: str, data: bytes | None) -> av.container.InputContainer:
    try:
        container = av.open(name if data is None else io.BytesIO(data), **ANY_METADATA)
    except av.InvalidDataError as error:
        raise VideoError(f"{name}: {_describe_no_video(name, data) or error.strerror}") from error
    for stream in container.streams.video:
        if stream.codec_context:
            stream.codec_context.thread_count = 1  # the loader decodes in parallel
    return container


def _describe_no_video(name: str, data: bytes | None) -> str:
    """Return what often lies in the place of a video; "" for anything else."""
    if data is None:
        with open(name, "rb") as file:
            data = file.read(64)
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer is in its place: fetch it with `git lfs pull`"
    return "a web page is in its place" if data.lstrip()[:1] == b"<" else ""


@contextmanager
def _video_errors(name: str) -> Iterator[None]:
    """Convert errors of FFmpeg and the file system to `VideoError` with the name of the video."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        raise VideoError(f"{name}: {getattr(error, 'strerror', '') or error}") from error


def check_frames_exist(name: str, frames: Int[np.ndarray, "..."], num_frames: int) -> None:
    """Raise `VideoError` if a frame number is out of range."""
    if frames.min() < 0 or frames.max() >= num_frames:
        raise VideoError(
            f"{name}: frames must be 0 to {num_frames - 1}, got {frames.min()} to {frames.max()}"
        )


def _has_reliable_stamps(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> bool:
    """Return whether time stamps identify frames in this format and codec; reads no packet."""
    if not container.format.name.startswith(("mov", "matroska")):
        return False
    # x264's 4:4:4 needs the encoder settings in the first packet.
    codec = stream.codec_context
    return codec.name != "h264" or "444" not in (codec.pix_fmt or "")


def _scan(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> _Index | None:
    """Read all packets without decoding; returns None if time stamps do not identify frames."""
    mov, codec = container.format.name.startswith("mov"), stream.codec_context.name
    stamps, keys = [], []
    for packet in container.demux(stream):
        if not packet.size:
            continue  # the end
        hidden = codec == "vp8" and not memoryview(packet)[0] & 0x10  # outputs no frame
        if packet.pts is None or packet.is_corrupt or hidden:
            return None
        if not packet.is_discard:  # an edit list may discard frames, including keyframes
            stamps.append(packet.pts)
        if packet.is_keyframe:
            # The mov demuxer compares seek targets with decoding times.
            keys.append((packet.pts, packet.dts if mov else packet.pts))
    numbers = {stamp: number for number, stamp in enumerate(sorted(stamps))}
    if not keys or not numbers or len(numbers) < len(stamps):
        return None
    keys = np.array(sorted(keys))
    return _Index(np.array(list(numbers)), numbers, keys[:, 0], keys[:, 1])


def convert_frame(
    frame: av.VideoFrame, size: tuple[int, int], reformatter: VideoReformatter
) -> UInt8[np.ndarray, "h w 3"]:
    """Return upright RGB: scaled to cover `size` (height, width), and center-cropped."""
    mirrored, rotation = frame_orientation(frame)
    turns = round(rotation / 90)
    h, w = size[::-1] if turns % 2 else size
    scale = max(h / frame.height, w / frame.width)
    height, width = max(h, round(frame.height * scale)), max(w, round(frame.width * scale))
    image = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    top, left = (height - h) // 2, (width - w) // 2
    image = image[top : top + h, left : left + w]
    return np.rot90(image[:, ::-1] if mirrored else image, turns)


def scale_pixels(
    fetch: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    frames: Int[np.ndarray, "k t"],
    size: tuple[int, int],
    reformatter: VideoReformatter,
) -> UInt8[np.ndarray, "k t h w 3"]:
    """Return frames as `convert_frame` does, of which each is fetched by number once."""
    numbers, inverse = np.unique(frames, return_inverse=True)
    pixels = (np.ascontiguousarray(fetch(number)) for number in numbers.tolist())
    images = (av.VideoFrame.from_ndarray(image, format="rgb24") for image in pixels)
    return np.stack([convert_frame(image, size, reformatter) for image in images])[inverse]


def frame_orientation(frame: av.VideoFrame) -> tuple[bool, int]:
    """Return what makes a frame upright: mirror left and right if True, then rotate.

    The rotation is in degrees counter-clockwise.
    """
    try:
        # Not `frame.side_data`, which refers to the frame and is stored in it: the cycle would keep
        # the frame's memory until Python's garbage collection.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")
    except ValueError:  # PyAV fails on frames with a kind of side data that it does not know
        return False, frame.rotation
    if matrix is None:
        return False, 0
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    return mirrored, -round(math.degrees(math.atan2(b, a)))


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return height and width of a frame when it is upright."""
    turned = round(frame_orientation(frame)[1] / 90) % 2
    return (frame.width, frame.height) if turned else (frame.height, frame.width)
