"""Data sets in Parquet and Arrow files, as on the Hugging Face hub.

Nothing here imports JAX. Listing reads footers and the columns of labels; a worker reads the rows
of its videos.
"""

import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import (
    ClassNumbers,
    Label,
    name_classes,
    number_classes,
    parse_label,
    warn_once,
)
from vrl_jax.data.datasets.file_lists import (
    Listed,
    open_handle,
    part_error,
    require_file,
    require_folder,
)
from vrl_jax.data.datasets.record_rows import THREADS
from vrl_jax.data.datasets.shard_paths import check_complete, list_shards, name_shards
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.media_containers import require_local
from vrl_jax.data.video.table_rows import TableVideo, open_arrow, open_parquet, summarize_error
from vrl_jax.data.video_dataset import Video, VideoHandle, VideoList

TABLES = r"(?!cache-.*\.arrow).+\.(parquet|arrow)"  # `datasets` keeps results of `map` in caches
LARGE_GROUP = 1 << 26  # bytes of videos in a row group, half of which are read for each video


class _Table(NamedTuple):
    """A file: its videos with their ids, and labels and class names by column."""

    ids: list[str]
    media: list[VideoHandle]
    labels: dict[str, list[Label]]
    names: dict[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class _Tables(Listed):
    """Base of data sets in tables.

    Attributes:
      video: column of the videos: bytes, structs of `bytes` and `path`, or paths, which are
        relative to the folder of the table.
      label: columns of the labels, separated by commas; the first is the label `class`, the others
        have the names of their columns. Tables without a column `label` have none.
      classes: file of lines `name` or `number name` for the first; "": the names that Hugging Face
        `datasets` stores, else names in alphabetical order, or numbers.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    video: str = "video"
    label: str = "label"
    classes: str = ""
    mirror_safe: bool = True

    def list_tables(self, part: str, paths: dict[str, list[AnyPath]]) -> VideoList:
        """Return the videos of a part, given the tables of all parts that number the classes."""
        if not importlib.util.find_spec("pyarrow"):
            raise ValueError("Parquet and Arrow files need pyarrow: pip install 'vrl-jax[parquet]'")
        with ThreadPoolExecutor(THREADS) as pool:
            tables = {
                key: list(pool.map(self._read_table, each, name_shards(each)))
                for key, each in paths.items()
            }
        ids = [name for table in tables[part] for name in table.ids]
        media = [each for table in tables[part] for each in table.media]
        if not ids:
            raise ValueError(f"the tables of {part} have no rows")
        classes, labels = {}, [{} for _ in ids]
        for position, column in enumerate(self._label_columns()):
            label = column if position else "class"
            numbering = self._find_classes(column, position, list(chain(*tables.values())))
            stored = [value for table in tables[part] for value in table.labels[column]]
            cite = functools.partial(_cite_row, media, ids)
            if numbers := numbering.number_labels(stored, cite):
                classes[label] = numbering.names
                for row, number in zip(labels, numbers, strict=True):
                    row[label] = number
        return VideoList(tuple(map(Video, ids, media, labels)), classes, self.mirror_safe)

    def _label_columns(self) -> list[str]:
        names = [name for name in self.label.split(",") if name]
        if "class" in names[1:]:
            raise ValueError(f"label must have the column 'class' first, got {self.label!r}")
        return names

    def _find_classes(self, column: str, position: int, tables: list[_Table]) -> ClassNumbers:
        if self.classes and not position:
            return number_classes((), require_file("classes", self.classes))
        names = {tuple(table.names[column]) for table in tables if column in table.names}
        if len(names) > 1:
            raise ValueError(f"the tables have different classes in column {column!r}")
        if names:
            return name_classes(names.pop())
        return number_classes(label for table in tables for label in table.labels[column])

    def _read_table(self, path: AnyPath, shard: str) -> _Table:
        """Return the content of a table but for the videos."""
        if path.name.endswith(".arrow"):
            require_local(path.parent, "Arrow")
        with _table_errors(path):
            schema, groups, read_column = _open_table(str(path))

        def read(name: str) -> list[Any]:
            with _table_errors(path):
                return read_column(name)

        kinds = {field.name: str(field.type) for field in schema}
        if self.video not in kinds:
            raise ValueError(
                f"{path} has no column {self.video!r}, but {', '.join(kinds)}: pass "
                "--config.data.video="
            )
        count = sum(groups)
        ids = [f"{shard}/{row}" for row in range(count)]
        labels = {
            name: self._read_labels(path, name, kinds, read, count)
            for name in self._label_columns()
        }
        return _Table(
            ids,
            self._list_media(path, ids, kinds, groups, read),
            labels,
            _class_names(path, schema),
        )

    def _read_labels(self, path, name, kinds, read, count) -> list[Label]:
        if name not in kinds:
            if name == self.label == _Tables.label:
                return [None] * count
            raise ValueError(
                f"{path} has no column {name!r}, but {', '.join(kinds)}: pass --config.data.label="
            )
        values = read(name)
        wrong = [value for value in values if type(value) not in (int, str, type(None))]
        if wrong:
            raise ValueError(f"{path}: {name} must be numbers or names, got {wrong[0]!r:.99}")
        return [parse_label(value) if isinstance(value, str) else value for value in values]

    def _list_media(self, path, ids, kinds, groups, read) -> list[VideoHandle]:
        kind = kinds[self.video]
        if kind in ("string", "large_string"):
            return [open_handle(os.path.join(path.parent, name or "")) for name in read(self.video)]
        if not re.match(r"(large_)?binary|struct<.*\bbytes: ", kind):
            raise ValueError(
                f"{path}: {self.video!r} must be bytes, a struct of bytes and path, or paths, got "
                f"{kind}"
            )
        rows = ((group, row) for group, size in enumerate(groups) for row in range(size))
        return [
            TableVideo(name, str(path), group, row, self.video)
            for name, (group, row) in zip(ids, rows, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Parquet(_Tables):
    """Videos in the rows of Parquet files, or of Arrow files of Hugging Face `datasets`.

    Attributes:
      train_shards: files of the training videos: a folder or a pattern.
      test_shards: the same for the test videos; "" for none.
    """

    train_shards: str = ""
    test_shards: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the files."""
        return self.list_tables(
            part, self._both(part, "shards", lambda key, value: list_shards(key, value, TABLES))
        )


@dataclass(frozen=True, kw_only=True)
class HuggingFaceFolder(_Tables):
    """A folder of Hugging Face `datasets`: a copy of one on the hub, or one by `save_to_disk`.

    The files of a split are `<split>-*.parquet` in `root` or `root/data`, or all Parquet and Arrow
    files in a folder `<split>`. `datasets` need not be installed.

    Attributes:
      root: the folder.
      train_split: split to train on.
      test_split: split to test on.
    """

    root: str = ""
    train_split: str = "train"
    test_split: str = "test"

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of the split."""
        root = require_folder("root", self.root)
        splits = _list_splits(root)
        names = {key: getattr(self, f"{key}_split") for key in ("train", "test")}
        if names[part] not in splits:
            raise part_error(self, f"{part}_split")(
                f"{root} has no split {names[part]!r}, but {', '.join(splits) or 'none'}: pass "
                f"--config.data.{part}_split="
            )
        paths = {key: check_complete(splits[name]) for key, name in names.items() if name in splits}
        return self.list_tables(part, paths)


def _list_splits(root: AnyPath) -> dict[str, list[AnyPath]]:
    """Return the files of each split, sorted."""
    splits: dict[str, list[AnyPath]] = {}
    for folder in (root, root / "data"):
        files, folders = (
            remote_paths.list_entries(folder) if remote_paths.is_folder(folder) else ([], [])
        )
        whole = "train" if "state.json" in files else ""  # one data set by `save_to_disk`
        for name in files:
            match = re.fullmatch(r"(\w+?)(-.*)?\.(parquet|arrow)", name)
            if match and re.fullmatch(TABLES, name):
                splits.setdefault(whole or match[1], []).append(folder / name)
        for inner in folders:
            tables = [
                folder / inner / name
                for name in remote_paths.list_entries(folder / inner)[0]
                if re.fullmatch(TABLES, name)
            ]
            if tables and inner != "data":
                splits.setdefault(inner, []).extend(tables)
    return splits


@contextmanager
def _table_errors(path: AnyPath) -> Iterator[None]:
    """Convert errors, which pyarrow and clients of object stores have of their own, to one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {summarize_error(error)}") from error


def _open_table(path: str) -> tuple[Any, list[int], Any]:
    """Return schema and sizes of the row groups of a table, and a reader of single columns."""
    if path.endswith(".arrow"):
        reader = open_arrow(path)
        schema, table = reader.schema, reader.read_all()
        return schema, [len(table)], lambda name: table.column(name).to_pylist()
    file = open_parquet(path)
    footer = file.metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > LARGE_GROUP:
        warn_once(
            f"{path} has row groups of up to {largest / 1e6:,.0f} MB, half of which are read for "
            "each video: write it again with row_group_size=10"
        )
    sizes = [group.num_rows for group in groups]
    return file.schema_arrow, sizes, lambda name: file.read(columns=[name]).column(name).to_pylist()


def _class_names(path: AnyPath, schema: Any) -> dict[str, Sequence[str]]:
    """Return the class names by column that Hugging Face `datasets` stores."""
    stored = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(stored).get("info", {}).get("features", {}) if stored else {}
        return {
            name: tuple(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata of Hugging Face datasets is damaged") from error


def _cite_row(media: list[VideoHandle], ids: list[str], row: int) -> str:
    return f"{media[row].path}: row {ids[row]}"
