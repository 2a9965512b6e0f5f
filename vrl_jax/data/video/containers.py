"""Videos inside larger files, and videos stored as images: what tars, zips and records hold.

Nothing here imports JAX. All of it is small and picklable; a worker opens the files it reads from.
"""

import functools
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from av.video.reformatter import VideoReformatter
from google.protobuf.message import DecodeError
from jaxtyping import Int, UInt8
from PIL import Image

from vrl_jax.data import storage
from vrl_jax.data.dataset import FrameReader, VideoError
from vrl_jax.data.storage import AnyPath
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.decode import VideoBytes, convert_frame, refuse_outside


@dataclass(frozen=True)
class ByteRange:
    """A stretch of a file: a member of a tar, a record of a TFRecord file.

    Attributes:
      path: of the file.
      offset: of the first byte.
      size: in bytes.
    """

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes; raises `OSError` where the file has fewer."""
        if storage.is_remote(self.path):
            data = storage.read_remote(self.path, self.offset, self.offset + self.size)
        else:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} is cut off: wanted {self.size} bytes at {self.offset}")
        return data


@dataclass(frozen=True)
class ArrayRecord:
    """A record of an ArrayRecord file.

    Attributes:
      path: of the file.
      number: of the record.
    """

    path: str
    number: int

    def read(self) -> bytes:
        """Return the record; the file stays open for the next of them."""
        return open_array_record(self.path)[self.number]


Stored = ByteRange | ArrayRecord


@functools.cache
def open_array_record(path: str) -> ArrayRecordDataSource:
    """Return the records of an ArrayRecord file, one object in a process."""
    return ArrayRecordDataSource([path])


def need_local(folder: AnyPath) -> None:
    """Raise `ValueError` where a folder of ArrayRecord files is on an object store."""
    if storage.is_remote(folder):
        raise ValueError(
            f"{folder}: ArrayRecord files are read from local disks alone; video files, tars and "
            f"TFRecords may be on object stores. Copy it: gcloud storage cp -r {folder} /data"
        )


@dataclass(frozen=True)
class _Inside:
    """What is inside a larger file."""

    name: str
    data: Stored

    @property
    def path(self) -> str:
        """Where the larger file is."""
        return self.data.path


@dataclass(frozen=True)
class StoredVideo(_Inside):
    """A video file inside a larger one.

    Attributes:
      name: what errors call it.
      data: where its bytes are.
    """

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _blame(self.name):
            data = self.data.read()
        with VideoBytes(self.name, data).open() as reader:
            yield reader


@dataclass(frozen=True)
class StoredExample(_Inside):
    """A feature of a tf.train.Example: a video file, or images that are its frames.

    Attributes:
      name: what errors call it.
      data: where the record is.
      feature: its bytes; one value is a video file unless it is a JPEG or PNG.
      fps: frames per second of images; 0 where it is not known.
    """

    feature: str
    fps: float = 0.0

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _blame(self.name):
            values = tfrecord.parse_example(self.data.read()).get(self.feature, [])
        if len(values) == 1 and not values[0].startswith((b"\xff\xd8", b"\x89PNG")):
            with VideoBytes(self.name, values[0]).open() as reader:
                yield reader
        else:
            yield _ImageReader(self.name, len(values), values.__getitem__, self.fps)


@dataclass(frozen=True)
class StoredSequence(_Inside):
    """A feature list of a tf.train.SequenceExample, of one image a frame.

    Attributes:
      name: what errors call it.
      data: where the record is.
      feature: the images.
      fps: frames per second; 0 where it is not known.
    """

    feature: str
    fps: float = 0.0

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _blame(self.name):
            values = tfrecord.parse_sequence(self.data.read()).get(self.feature, [])
        yield _ImageReader(self.name, len(values), lambda number: values[number][0], self.fps)


@dataclass(frozen=True)
class ZippedFrames:
    """A zip file with the frames of one video as images, in the order of their names.

    Attributes:
      path: where it is.
    """

    path: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _blame(self.path):
            far = storage.is_remote(self.path)
            archive = zipfile.ZipFile(
                io.BytesIO(storage.read_remote(self.path)) if far else self.path
            )
        with archive:
            names = [
                name
                for name in sorted(archive.namelist())
                if name.lower().endswith((".jpg", ".jpeg", ".png"))
            ]
            yield _ImageReader(
                self.path, len(names), lambda number: archive.read(names[number]), 0.0
            )


class _ImageReader:
    """Frames that are images; only those wanted are fetched and decoded."""

    def __init__(
        self, name: str, num_frames: int, fetch: Callable[[int], bytes], fps: float
    ) -> None:
        if not num_frames:
            raise VideoError(f"{name}: it has no frames")
        self.num_frames, self.fps = num_frames, fps
        self._name, self._fetch = name, fetch
        self._reformatter = VideoReformatter()

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        refuse_outside(self._name, frames, self.num_frames)
        wanted, where = np.unique(frames, return_inverse=True)
        with _blame(self._name):
            images = [self._decode(number, size) for number in wanted.tolist()]
        return np.stack(images)[where]

    def _decode(self, number: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        with Image.open(io.BytesIO(self._fetch(number))) as image:
            pixels = np.asarray(image.convert("RGB"))
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        return convert_frame(frame, size, self._reformatter)


@contextmanager
def _blame(name: str) -> Iterator[None]:
    """Turn what damaged files, archives, records and images raise into a `VideoError`."""
    damage = (OSError, ValueError, IndexError, SyntaxError, EOFError, DecodeError, RuntimeError)
    try:
        yield
    except (*damage, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError is ArrayRecord's
        raise VideoError(f"{name}: {error}") from error
