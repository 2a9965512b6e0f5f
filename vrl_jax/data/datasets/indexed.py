"""The manifest of a data set: one row per video, written by `vrl_jax.data.tools.video_index`.

A manifest is a folder with `manifest.jsonl`, one `Row` per line, and `dataset.json`, which is
written last. Nothing here imports JAX.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vrl_jax import atomic_files, check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.file_lists import PARTS, Listed, require_folder
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import MissingPart, Video, VideoList

MANIFEST, DATASET = "manifest.jsonl", "dataset.json"
JSON_TYPES = {tuple[str, ...]: list, Mapping[str, int | tuple[int, ...]]: dict, float: (int, float)}
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """The properties of a video; those of an unreadable one are 0 where unknown.

    Attributes:
      id: id of the video.
      splits: the parts it belongs to, of "pretrain", "train" and "test".
      path: absolute path.
      relative: path relative to the root of the data set.
      labels: label name to class number, or to several.
      frames: number of frames.
      fps: frames per second.
      height: height of the upright frames, pixels.
      width: width of the upright frames, pixels.
      mirrored: whether stored frames are mirrored left to right before they are rotated.
      rotation: rotation that makes stored frames upright, degrees counter-clockwise.
      seconds: duration.
      streams: number of video streams in the file, one of which is read.
      bytes: size of the file.
      sha256: hash of the file, if it was computed.
      ok: whether the video can be read.
      reason: why it cannot be read.
    """

    id: str
    splits: tuple[str, ...]
    path: str
    relative: str
    labels: Mapping[str, int | tuple[int, ...]]
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    mirrored: bool = False
    rotation: int = 0
    seconds: float = 0.0
    streams: int = 0
    bytes: int = 0
    sha256: str = ""
    ok: bool = False
    reason: str = ""

    def to_json(self) -> str:
        """Return the row as a line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


@dataclass(frozen=True)
class Indexed(Listed):
    """The readable videos of an indexed data set.

    Attributes:
      manifest: folder that `python -m vrl_jax.data.index` wrote.
      root: root of the data set, if it has moved since; "": where it was indexed.
    """

    manifest: str = ""
    root: str = ""

    def list_part(self, part: str) -> VideoList:
        """Return the readable videos of a part; raises `ValueError` without a manifest."""
        check.one_of(PARTS, part=part)
        rows, about = load_manifest(require_folder("manifest", self.manifest))
        root = require_folder("root", self.root) if self.root else None
        videos = tuple(
            Video(row.id, VideoFile(str(root / row.relative) if root else row.path), row.labels)
            for row in rows
            if row.ok and part in row.splits
        )
        left_out = sum(not row.ok and part in row.splits for row in rows)
        if not videos:
            raise (ValueError if left_out else MissingPart)(
                f"{self.manifest} has no readable {part} video"
            )
        return list_stored(videos, about, left_out)


def load_manifest(folder: AnyPath) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of a manifest and the content of `dataset.json`.

    Raises:
      ValueError: the manifest is missing or unfinished, or `dataset.json` belongs to another one.
    """
    rows, about = read_manifest(folder)
    if hash_rows(rows) != about["hash"]:
        raise ValueError(
            f"{folder}: {DATASET} belongs to another {MANIFEST}: if excluding videos was "
            "interrupted, repeat it; else delete the folder and index again"
        )
    return rows, about


def read_manifest(folder: AnyPath) -> tuple[list[Row], dict[str, Any]]:
    """Return the same without checking that the two files belong together."""
    if not (folder / DATASET).is_file() or not (folder / MANIFEST).is_file():
        raise ValueError(
            f"{folder} has no finished manifest: create or resume it with "
            f"`python -m vrl_jax.data.index SOURCE --out={folder}`"
        )
    about = read_about(folder / DATASET, readable=int, splits=dict, made=dict)
    return read_rows(folder / MANIFEST, Row), about


def read_rows(path: AnyPath, kind: type[T]) -> list[T]:
    """Return the rows in a file of JSON lines, which the dataclass `kind` describes.

    Raises:
      ValueError: a line is not JSON, or has other fields or types.
    """
    lines = enumerate(remote_paths.read_text(path).splitlines(), 1)
    return [parse_row(f"{path}, line {number}", line, kind) for number, line in lines]


def parse_row(where: str, line: str, kind: type[T]) -> T:
    """Return the row of a line of JSON; raises `ValueError` with its place in a file."""
    types = _json_types(kind)
    with _explain_damage(where):
        values = json.loads(line)
        _check_types(values, {name: types[name] for name in values})
        labels = {  # JSON has no tuples
            name: tuple(label) if isinstance(label, list) else label
            for name, label in values["labels"].items()
        }
        return kind(**values | {"splits": tuple(values["splits"]), "labels": labels})


def read_about(path: AnyPath, **types: type) -> dict[str, Any]:
    """Return the content of a `dataset.json`: classes, a hash and at least the fields of `types`.

    Raises:
      ValueError: the file is not JSON, or lacks a field.
    """
    with _explain_damage(path):
        about = json.loads(remote_paths.read_text(path))
        _check_types(about, {"classes": dict, "mirror_safe": bool, "hash": str, **types})
        return about


@functools.cache
def _json_types(kind: type) -> dict[str, Any]:
    """Return the type that JSON gives to each field of a dataclass."""
    return {item.name: JSON_TYPES.get(item.type, item.type) for item in dataclasses.fields(kind)}


def _check_types(values: dict[str, Any], types: Mapping[str, Any]) -> None:
    for name, kind in types.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} is {values[name]!r}")


@contextlib.contextmanager
def _explain_damage(where: str | AnyPath) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{where} is damaged: delete the folder and make it again "
            f"({type(error).__name__}: {error})"
        ) from error


def save_manifest(folder: Path, rows: list[Row], about: Mapping[str, Any]) -> None:
    """Write a finished manifest: the rows, and `about` with their counts and their hash."""
    readable = [row for row in rows if row.ok]
    counts = {
        "videos": len(rows),
        "readable": len(readable),
        "splits": count_splits(readable),
        "hash": hash_rows(rows),
    }
    atomic_files.write_text(folder / MANIFEST, "".join(row.to_json() for row in rows))
    atomic_files.write_text(folder / DATASET, json.dumps({**about, **counts}, indent=2) + "\n")


def hash_rows(rows: Iterable[Any]) -> str:
    """Return the SHA-256 of ids, labels, frames and ok, which does not depend on paths."""
    digest = hashlib.sha256()
    for row in rows:
        values = [row.id, sorted(row.labels.items()), row.frames, row.ok]
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()


def count_splits(rows: Iterable[Any]) -> dict[str, int]:
    """Return the number of rows in each part."""
    counts = Counter(part for row in rows for part in row.splits)
    return {part: counts[part] for part in PARTS}


def list_stored(videos: tuple[Video, ...], about: Mapping[str, Any], left_out: int) -> VideoList:
    """Return the videos of a part, at least one, with the content of a `dataset.json`."""
    return VideoList(
        videos,
        {label: tuple(about["classes"][label]) for label in videos[0].labels},
        about["mirror_safe"],
        about["hash"],
        left_out,
        about.get("reverse_safe", True),  # not in folders of earlier versions
    )
