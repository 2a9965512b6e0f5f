"""Videos that `vrl_jax.data.tools.transcode` transcoded, in ArrayRecord shards.

A record is a 4-byte little-endian length, a JSON object of that length in UTF-8 (`id`, `labels`,
`frames`, `fps`, `height`, `width`, `sha256` of the original or ""), then an mp4 file up to the end
of the record. `videos.jsonl` says in which shard each video is, so that nothing has to read the
shards to know what they hold; `dataset.json` is written last. Nothing here imports JAX.
"""

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vrl_jax import check
from vrl_jax.data.dataset import FrameReader, Video, VideoError, VideoList
from vrl_jax.data.datasets.file_lists import PARTS, Listed, need_folder
from vrl_jax.data.datasets.indexed import DATASET, hash_rows, read_classes
from vrl_jax.data.storage import AnyPath
from vrl_jax.data.video.containers import ArrayRecord, need_local
from vrl_jax.data.video.decode import VideoBytes

VIDEOS = "videos.jsonl"


@dataclass(frozen=True)
class Entry:
    """A line of `videos.jsonl`.

    Attributes:
      id: of the video.
      splits: those of "pretrain", "train" and "test" that it belongs to.
      labels: label name to class number.
      frames: how many there are.
      fps: frames per second.
      height: of the frames, pixels.
      width: of the frames, pixels.
      sha256: of the original, where the manifest has it.
      shard: name of the file.
      record: its number in there.
    """

    id: str
    splits: tuple[str, ...]
    labels: Mapping[str, int]
    frames: int
    fps: float
    height: int
    width: int
    sha256: str
    shard: str
    record: int
    ok = True  # for the hash: what is not is not here

    @classmethod
    def from_json(cls, line: str) -> "Entry":
        """Return the entry of a line."""
        values = json.loads(line)
        return cls(**values | {"splits": tuple(values["splits"])})

    def to_json(self) -> str:
        """Return the entry as a line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    def header(self) -> dict[str, Any]:
        """Return what the record itself tells."""
        return {key: getattr(self, key) for key in HEADER}


HEADER = ("id", "labels", "frames", "fps", "height", "width", "sha256")


@dataclass(frozen=True)
class PreparedVideo:
    """The mp4 file in a record, which is read when it is opened.

    Attributes:
      name: what errors call it.
      path: of the shard.
      number: of the record.
    """

    name: str
    path: str
    number: int

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`, also where the shard is damaged."""
        try:
            mp4 = unpack_record(ArrayRecord(self.path, self.number).read())[1]
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # the first is C++'s
            told = f"{self.name}: {self.path}, record {self.number}: {error}"
            raise VideoError(told) from error
        with VideoBytes(self.name, mp4).open() as reader:
            yield reader


@dataclass(frozen=True)
class Prepared(Listed):
    """A data set that was transcoded.

    Attributes:
      root: the folder that `python -m vrl_jax.data.prepare` wrote.
    """

    root: str = ""

    def list_part(self, part: str) -> VideoList:
        """Return the videos of a part; raises `ValueError` where the folder is not finished."""
        check.one_of(PARTS, part=part)
        root = need_folder("root", self.root)
        need_local(root)
        entries, about = load_entries(root)
        videos = tuple(
            Video(entry.id, open_record(root, entry), entry.labels)
            for entry in entries
            if part in entry.splits
        )
        if not videos:
            raise ValueError(f"{root} has no {part} video")
        left_out = about.get("left_out", {}).get(part, 0)
        told = read_classes(about), about["mirror_safe"], about["hash"], left_out
        return VideoList(videos, *told)


def open_record(root: AnyPath, entry: Entry) -> PreparedVideo:
    """Return what opens the video of an entry."""
    return PreparedVideo(entry.id, str(root / entry.shard), entry.record)


def load_entries(root: AnyPath) -> tuple[list[Entry], dict[str, Any]]:
    """Return the entries of a prepared data set and what `dataset.json` says of them.

    Raises:
      ValueError: the folder is not finished, or `videos.jsonl` is not its own.
    """
    if not (root / DATASET).is_file() or not (root / VIDEOS).is_file():
        raise ValueError(
            f"{root} has no finished shards: make them, or go on making them, with "
            f"`python -m vrl_jax.data.prepare MANIFEST_DIR --out={root}`"
        )
    about = json.loads((root / DATASET).read_text())
    entries = [Entry.from_json(line) for line in (root / VIDEOS).read_text().splitlines()]
    if hash_rows(entries) != about["hash"]:
        raise ValueError(f"{root}: {VIDEOS} is not the one that {DATASET} was written for")
    return entries, about


def pack_record(header: Mapping[str, Any], mp4: bytes) -> bytes:
    """Return a record."""
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + mp4


def unpack_record(record: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the mp4 file of a record; raises `ValueError` where it is none."""
    end = 4 + struct.unpack("<I", record[:4])[0] if len(record) >= 4 else 0
    if not 4 < end <= len(record):
        raise ValueError(f"a record of {len(record)} bytes is none of a transcoded video")
    return json.loads(record[4:end]), record[end:]
