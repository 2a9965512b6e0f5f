"""Transcoded videos in ArrayRecord shards, written by `vrl_jax.data.tools.video_transcoder`.

A record is a 4-byte little-endian length, a UTF-8 JSON object of that length (`id`, `labels`,
`frames`, `fps`, `height`, `width`, `sha256` of the original or ""), and an mp4 file up to the end
of the record. `videos.jsonl` lists the record of each video, so that listing a data set does not
read its shards; `dataset.json` is written last. Nothing here imports JAX.
"""

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vrl_jax import check
from vrl_jax.data.datasets.file_lists import PARTS, Listed, require_folder
from vrl_jax.data.datasets.indexed import (
    DATASET,
    hash_rows,
    list_stored,
    read_about,
    read_rows,
)
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.media_containers import ArrayRecord, require_local
from vrl_jax.data.video.video_decoder import VideoBytes
from vrl_jax.data.video_dataset import FrameReader, MissingPart, Video, VideoError, VideoList

VIDEOS = "videos.jsonl"


@dataclass(frozen=True)
class Entry:
    """A line of `videos.jsonl`.

    Attributes:
      id: id of the video.
      splits: the parts it belongs to, of "pretrain", "train" and "test".
      labels: label name to class number, or to several.
      frames: number of frames.
      fps: frames per second.
      height: height of the frames, pixels.
      width: width of the frames, pixels.
      sha256: hash of the original file, if the manifest has it.
      shard: name of the shard.
      record: number of the record in the shard.
    """

    id: str
    splits: tuple[str, ...]
    labels: Mapping[str, int | tuple[int, ...]]
    frames: int
    fps: float
    height: int
    width: int
    sha256: str
    shard: str
    record: int
    ok = True  # for `hash_rows`: shards have readable videos only

    def to_json(self) -> str:
        """Return the entry as a line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    def header(self) -> dict[str, Any]:
        """Return the JSON object in the record."""
        return {key: getattr(self, key) for key in HEADER}


HEADER = ("id", "labels", "frames", "fps", "height", "width", "sha256")


@dataclass(frozen=True)
class PreparedVideo:
    """The mp4 file in a record, which is read when the video is opened.

    Attributes:
      name: name of the video in errors.
      path: path of the shard.
      number: number of the record.
    """

    name: str
    path: str
    number: int

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError` if the video or the shard is damaged."""
        try:
            mp4 = unpack_record(ArrayRecord(self.path, self.number).read())[1]
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # RuntimeError: from C++
            record = f"{self.path}, record {self.number}"
            raise VideoError(f"{self.name}: {record}: {error}") from error
        with VideoBytes(self.name, mp4).open() as reader:
            yield reader


@dataclass(frozen=True)
class Prepared(Listed):
    """A transcoded data set.

    Attributes:
      root: folder that `python -m vrl_jax.data.prepare` wrote.
    """

    root: str = ""

    def list_part(self, part: str) -> VideoList:
        """Return the videos of a part; raises `ValueError` if the folder is unfinished."""
        check.one_of(PARTS, part=part)
        root = require_folder("root", self.root)
        require_local(root)
        entries, about = load_entries(root)
        videos = tuple(
            Video(entry.id, open_record(root, entry), entry.labels)
            for entry in entries
            if part in entry.splits
        )
        left_out = about.get("left_out", {}).get(part, 0)
        if not videos:
            raise (ValueError if left_out else MissingPart)(f"{root} has no {part} video")
        return list_stored(videos, about, left_out)


def open_record(root: AnyPath, entry: Entry) -> PreparedVideo:
    """Return the handle of an entry's video."""
    return PreparedVideo(entry.id, str(root / entry.shard), entry.record)


def load_entries(root: AnyPath) -> tuple[list[Entry], dict[str, Any]]:
    """Return the entries of a transcoded data set and the content of `dataset.json`.

    Raises:
      ValueError: the folder is unfinished, or `dataset.json` belongs to another `videos.jsonl`.
    """
    if not (root / DATASET).is_file() or not (root / VIDEOS).is_file():
        raise ValueError(
            f"{root} has no finished shards: create or resume them with "
            f"`python -m vrl_jax.data.prepare MANIFEST_DIR --out={root}`"
        )
    about = read_about(root / DATASET)
    entries = read_rows(root / VIDEOS, Entry)
    if hash_rows(entries) != about["hash"]:
        raise ValueError(f"{root}: {DATASET} belongs to another {VIDEOS}")
    return entries, about


def pack_record(header: Mapping[str, Any], mp4: bytes) -> bytes:
    """Return a record."""
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + mp4


def unpack_record(record: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the mp4 file of a record; raises `ValueError` if it is malformed."""
    end = 4 + struct.unpack("<I", record[:4])[0] if len(record) >= 4 else 0
    if not 4 < end <= len(record):
        raise ValueError(f"a record of {len(record)} bytes is not a transcoded video")
    return json.loads(record[4:end]), record[end:]
