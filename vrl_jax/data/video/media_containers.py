"""Videos inside larger files, and videos stored as images: members of tars, zips and records.

Nothing here imports JAX. Handles are small and picklable; workers open the files.
"""

import functools
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from av.video.reformatter import VideoReformatter
from google.protobuf.message import DecodeError
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.video_decoder import VideoBytes, check_frames_exist, scale_pixels
from vrl_jax.data.video_dataset import FrameReader, VideoError

_ZEROS = str.maketrans("123456789", "0" * 9)
_NUMBERS = re.compile(r"([0-9]+)")
_DECIMALS = re.compile(r"([0-9]+(?:\.[0-9]+)?)")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class ByteRange:
    """A byte range of a file: a member of a tar, a record of a TFRecord file.

    Attributes:
      path: path of the file.
      offset: offset of the first byte.
      size: number of bytes.
    """

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes; raises `OSError` if the file is too short."""
        if remote_paths.is_remote(self.path):
            data = remote_paths.read_remote(self.path, self.offset, self.offset + self.size)
        else:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(
                f"{self.path} is truncated: must have {self.size} bytes at {self.offset}, "
                f"got {len(data)}"
            )
        return data


@dataclass(frozen=True)
class ArrayRecord:
    """A record of an ArrayRecord file.

    Attributes:
      path: path of the file.
      number: number of the record.
    """

    path: str
    number: int

    def read(self) -> bytes:
        """Return the record; the file stays open for further records."""
        return open_array_record(self.path)[self.number]


Stored = ByteRange | ArrayRecord


@functools.cache
def open_array_record(path: str) -> ArrayRecordDataSource:
    """Return the records of an ArrayRecord file; the object is shared within a process."""
    return ArrayRecordDataSource([path])


def require_local(folder: AnyPath, kind: str = "ArrayRecord") -> None:
    """Raise `ValueError` if a folder of ArrayRecord or Arrow files is on an object store."""
    if remote_paths.is_remote(folder):
        raise ValueError(
            f"{folder}: {kind} files must be on a local disk; only video files, tars, TFRecords "
            f"and Parquet may be on object stores. Copy it: gcloud storage cp -r {folder} /data"
        )


@dataclass(frozen=True)
class _Inside:
    """A video inside a larger file."""

    name: str
    data: Stored

    @property
    def path(self) -> str:
        """Path of the larger file."""
        return self.data.path


@dataclass(frozen=True)
class StoredVideo(_Inside):
    """A video file inside a larger file.

    Attributes:
      name: name of the video in errors.
      data: location of its bytes.
    """

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _damage_errors(self.name):
            data = self.data.read()
        with VideoBytes(self.name, data).open() as reader:
            yield reader


@dataclass(frozen=True)
class StoredExample(_Inside):
    """A feature of a tf.train.Example: a video file, or one image per frame.

    Attributes:
      name: name of the video in errors.
      data: location of the record.
      feature: name of the feature; a single value is a video file unless it is a JPEG or PNG.
      fps: frame rate of images; 0 if unknown.
    """

    feature: str
    fps: float = 0.0

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _damage_errors(self.name):
            values = tfrecord.parse_example(self.data.read()).get(self.feature, [])
        if len(values) == 1 and not values[0].startswith((b"\xff\xd8", b"\x89PNG")):
            with VideoBytes(self.name, values[0]).open() as reader:
                yield reader
        else:
            yield _ImageReader(self.name, len(values), values.__getitem__, self.fps)


@dataclass(frozen=True)
class StoredSequence(_Inside):
    """A feature list of a tf.train.SequenceExample with one image per frame.

    Attributes:
      name: name of the video in errors.
      data: location of the record.
      feature: name of the feature list.
      fps: frame rate; 0 if unknown.
    """

    feature: str
    fps: float = 0.0

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        with _damage_errors(self.name):
            values = tfrecord.parse_sequence(self.data.read()).get(self.feature, [])
        yield _ImageReader(self.name, len(values), lambda number: values[number][0], self.fps)


@dataclass(frozen=True)
class ZippedFrames:
    """A zip file with the frames of one video as images, in the order of their numbers.

    Hidden files, `__MACOSX` and, among numbered images, those without a number are no frames.

    Attributes:
      path: path of the zip file.
    """

    path: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also if the images form several sequences."""
        with _damage_errors(self.path):
            remote = remote_paths.is_remote(self.path)
            archive = zipfile.ZipFile(
                io.BytesIO(remote_paths.read_remote(self.path)) if remote else self.path
            )
        with archive:
            with _damage_errors(self.path):
                names = sort_frames(archive.namelist())
            yield _ImageReader(
                self.path, len(names), lambda number: archive.read(names[number]), 0.0
            )


def sort_frames(names: Iterable[str]) -> list[str]:
    """Return the names of the images of one video in the order of their numbers.

    Raises:
      ValueError: the names differ in more than numbers, as those of RGB and flow do, or no number
        tells all images apart.
    """
    images = [name for name in names if name.lower().endswith(IMAGES)]
    (shape, *others) = {name.translate(_ZEROS) for name in images} or {""}
    if not others and "/." not in f"/{shape}":  # padded numbers, the usual case, need no parsing
        spans = [match.span() for match in re.finditer("0+", shape)]
        if any(len({name[a:b] for name in images}) == len(images) for a, b in spans):
            return sorted(images)
    stems = {
        name: name[: name.rindex(".")]
        for name in images
        if "/." not in f"/{name}" and "__MACOSX/" not in name
    }
    pattern = _number_pattern(stems.values())
    parts = {name: pattern.split(stem) for name, stem in stems.items()}  # text and numbers in turn
    numbered = [name for name, pieces in parts.items() if len(pieces) > 1 and "/" not in pieces[-1]]
    if numbered and len(numbered) < len(parts):  # the others are thumbnails
        parts = {name: parts[name] for name in numbered}
    series = {tuple(pieces[::2]): name for name, pieces in reversed(parts.items())}
    if len(series) > 1:
        raise ValueError(
            f"the images must be one series of numbered frames, got {len(series)}, such as "
            f"{' and '.join(sorted(series.values())[:2])}: keep one series in the zip"
        )
    numbers = {name: [Decimal(text) for text in pieces[1::2]] for name, pieces in parts.items()}
    frames = sorted(parts, key=numbers.get)
    columns = zip(*numbers.values(), strict=True)
    if len(frames) > 1 and all(len(set(column)) < len(frames) for column in columns):
        raise ValueError(
            "the images must be one series of numbered frames, but several have the same number: "
            "keep one series in the zip"
        )
    return frames


def _number_pattern(stems: Collection[str]) -> re.Pattern:
    """Return the pattern of numbers in names, with decimals where frames are named by seconds.

    Digits after a point are decimals if one with a leading zero is longer than another, as in 0.04
    and 0.2. A count, as in `take.2.010`, has leading zeros only up to its least length.
    """
    texts = [text for stem in stems for text in re.findall(r"[0-9]\.([0-9]+)", stem)]
    padded = max((len(text) for text in texts if text[0] == "0"), default=0)
    return _DECIMALS if padded > min(map(len, texts), default=0) else _NUMBERS


class _ImageReader:
    """Frames stored as images, fetched and decoded on demand."""

    def __init__(
        self, name: str, num_frames: int, fetch: Callable[[int], bytes], fps: float
    ) -> None:
        if not num_frames:
            raise VideoError(f"{name}: it has no frames, which must be stored as images")
        self.num_frames, self.fps = num_frames, fps
        self._name, self._fetch = name, fetch
        self._reformatter = VideoReformatter()

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        check_frames_exist(self._name, frames, self.num_frames)
        with _damage_errors(self._name):
            return scale_pixels(self._decode, frames, size, self._reformatter)

    def _decode(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        try:
            with Image.open(io.BytesIO(self._fetch(number))) as image:
                if image.mode in ("I", "F"):
                    raise ValueError(
                        f"frame {number} has pixels of 32 bits, which have no known range (mode "
                        f"{image.mode!r}): save images of 8 or 16 bits"
                    )
                return _upright_rgb(image)
        except UnidentifiedImageError as error:  # its message has an address in memory
            raise ValueError(f"frame {number} is not an image that Pillow reads") from error


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an image, turned as its Exif orientation states.

    Of 16 bits the upper 8 are kept; Pillow's own conversion would clip them to white.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


@contextmanager
def _damage_errors(name: str) -> Iterator[None]:
    """Convert errors of damaged files, archives, records and images to `VideoError`."""
    damage = (OSError, ValueError, IndexError, SyntaxError, EOFError, DecodeError, RuntimeError)
    try:
        yield
    except (*damage, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError is ArrayRecord's
        raise VideoError(f"{name}: {error}") from error
