"""The manifest of a data set: one row per video, written by `vrl_jax.data.tools.index`.

It is a folder with `manifest.jsonl`, a `Row` a line, and `dataset.json`, which is written last.
Nothing here imports JAX.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrl_jax import check, files
from vrl_jax.data.dataset import Video, VideoList
from vrl_jax.data.datasets.file_lists import PARTS, Listed, need_folder
from vrl_jax.data.storage import AnyPath
from vrl_jax.data.video.decode import VideoFile

MANIFEST, DATASET = "manifest.jsonl", "dataset.json"


@dataclass(frozen=True)
class Row:
    """A video as it was found. What is not known of an unreadable one is 0.

    Attributes:
      id: of the video.
      splits: those of "pretrain", "train" and "test" that it belongs to.
      path: absolute.
      relative: the path from the data set's root.
      labels: label name to class number.
      frames: how many there are.
      fps: frames per second.
      height: of the upright picture, pixels.
      width: of the upright picture, pixels.
      rotation: that makes the stored picture upright, degrees counter-clockwise.
      seconds: how long it plays.
      bytes: size of the file.
      sha256: of the file, where that was asked for.
      ok: whether it can be read.
      reason: why not.
    """

    id: str
    splits: tuple[str, ...]
    path: str
    relative: str
    labels: Mapping[str, int]
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    rotation: int = 0
    seconds: float = 0.0
    bytes: int = 0
    sha256: str = ""
    ok: bool = False
    reason: str = ""

    def to_json(self) -> str:
        """Return the row as a line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """Return the row of a line."""
        values = json.loads(line)
        return cls(**values | {"splits": tuple(values["splits"])})


@dataclass(frozen=True)
class Indexed(Listed):
    """The readable videos of a data set that was indexed.

    Attributes:
      manifest: the folder that `python -m vrl_jax.data.index` wrote.
      root: folder that the videos now lie in; "": where they were found.
    """

    manifest: str = ""
    root: str = ""

    def list_part(self, part: str) -> VideoList:
        """Return the readable videos of a part; `ValueError` without a finished manifest."""
        check.one_of(PARTS, part=part)
        rows, about = load_manifest(need_folder("manifest", self.manifest))
        root = need_folder("root", self.root) if self.root else None
        videos = tuple(
            Video(row.id, VideoFile(str(root / row.relative) if root else row.path), row.labels)
            for row in rows
            if row.ok and part in row.splits
        )
        if not videos:
            raise ValueError(f"{self.manifest} has no readable {part} video")
        left_out = sum(not row.ok and part in row.splits for row in rows)
        told = read_classes(about), about["mirror_safe"], about["hash"], left_out
        return VideoList(videos, *told)


def load_manifest(folder: AnyPath) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of a manifest and what `dataset.json` says of them.

    Raises:
      ValueError: the manifest is missing, unfinished or not what `dataset.json` was written for.
    """
    rows, about = read_manifest(folder)
    if hash_rows(rows) != about["hash"]:
        raise ValueError(
            f"{folder}: {MANIFEST} is not the one that {DATASET} was written for: if excluding "
            "videos was interrupted, repeat it; else delete the folder and index again"
        )
    return rows, about


def read_manifest(folder: AnyPath) -> tuple[list[Row], dict[str, Any]]:
    """Return the same, without a look at whether the two files fit."""
    if not (folder / DATASET).is_file() or not (folder / MANIFEST).is_file():
        raise ValueError(
            f"{folder} has no finished manifest: make it, or go on making it, with "
            f"`python -m vrl_jax.data.index SOURCE --out={folder}`"
        )
    about = json.loads((folder / DATASET).read_text())
    rows = [Row.from_json(line) for line in (folder / MANIFEST).read_text().splitlines()]
    return rows, about


def save_manifest(folder: Path, rows: list[Row], about: Mapping[str, Any]) -> None:
    """Write a manifest whose rows are final; `about` gains its counts and its hash."""
    good = [row for row in rows if row.ok]
    counts = {
        "videos": len(rows),
        "readable": len(good),
        "splits": count_splits(good),
        "hash": hash_rows(rows),
    }
    files.write_text(folder / MANIFEST, "".join(row.to_json() for row in rows))
    files.write_text(folder / DATASET, json.dumps({**about, **counts}, indent=2) + "\n")


def hash_rows(rows: Iterable[Any]) -> str:
    """Return the SHA-256 over ids, labels, frames and ok: the same wherever the files lie."""
    digest = hashlib.sha256()
    for row in rows:
        told = [row.id, sorted(row.labels.items()), row.frames, row.ok]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def count_splits(rows: Iterable[Any]) -> dict[str, int]:
    """Return how many of the rows are in each split."""
    counts = Counter(part for row in rows for part in row.splits)
    return {part: counts[part] for part in PARTS}


def read_classes(about: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the class names that a `dataset.json` holds."""
    return {label: tuple(names) for label, names in about["classes"].items()}
