"""Videos in the rows of Parquet and Arrow files.

Nothing here imports JAX, and pyarrow is imported where a file is read. Of a Parquet file one row
group is read up to the row, of an Arrow file, which is mapped into memory, the row.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vrl_jax.data import remote_paths
from vrl_jax.data.video.video_decoder import VideoBytes, VideoFile
from vrl_jax.data.video_dataset import FrameReader, VideoError

READ_BYTES = 1 << 20  # read at a time from an object store


@dataclass(frozen=True)
class TableVideo:
    """A video in a cell: the bytes of a file, or a struct of its `bytes` and its `path`.

    Attributes:
      name: name of the video in errors.
      path: path of the Parquet or Arrow file.
      group: number of the row group; 0 in an Arrow file.
      row: number of the row in its group.
      column: name of the column.
    """

    name: str
    path: str
    group: int
    row: int
    column: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError`."""
        try:
            cell = read_cell(self.path, self.group, self.row, self.column)
        except Exception as error:  # pyarrow and clients of object stores have errors of their own
            raise VideoError(f"{self.name}: {summarize_error(error)}") from error
        data, file = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, "")
        if not data and not file:
            raise VideoError(f"{self.name}: its column {self.column!r} has neither bytes nor path")
        folder = os.path.dirname(self.path)
        media = VideoBytes(self.name, data) if data else VideoFile(os.path.join(folder, file))
        with media.open() as reader:
            yield reader


def summarize_error(error: Exception) -> str:
    """Return the message of an error in one line; its type if there is none."""
    return " ".join(str(error).split()) or type(error).__name__


def read_cell(path: str, group: int, row: int, column: str) -> Any:
    """Return the value of a cell as a Python object."""
    if path.endswith(".arrow"):
        return _map_arrow(path, os.stat(path).st_mtime_ns).column(column)[row].as_py()
    with open_parquet(path) as file:
        batches = file.iter_batches(
            batch_size=1, row_groups=[group], columns=[column], use_threads=False
        )
        for number, batch in enumerate(batches):
            if number == row:
                return batch.column(0)[0].as_py()
    raise IndexError(f"{path} has no row {row} in group {group}")


def open_parquet(path: str) -> Any:
    """Return the open `pyarrow.parquet.ParquetFile`; its footer is read once in a process."""
    written = 0 if remote_paths.is_remote(path) else os.stat(path).st_mtime_ns
    return _open_parquet(path, _read_footer(path, written))


@functools.lru_cache(maxsize=256)
def _read_footer(path: str, written: int) -> Any:
    """Return the footer of a file as it was written at a time."""
    with _open_parquet(path) as file:
        return file.metadata


def _open_parquet(path: str, footer: Any = None) -> Any:
    import pyarrow.parquet  # optional, and slow to import

    if remote_paths.is_remote(path):
        source = remote_paths.open_sparse(path)
        return pyarrow.parquet.ParquetFile(source, metadata=footer, buffer_size=READ_BYTES)
    # Without a buffer of the whole row group, which doubles the time, pages are read when used.
    return pyarrow.parquet.ParquetFile(path, metadata=footer, memory_map=True, pre_buffer=False)


@functools.lru_cache(maxsize=256)
def _map_arrow(path: str, written: int) -> Any:
    """Return the table of an Arrow file, whose pages are read when they are used."""
    return open_arrow(path).read_all()


def open_arrow(path: str) -> Any:
    """Return a reader of an Arrow file in the stream or the file format, mapped into memory."""
    import pyarrow as pa  # optional, and slow to import

    source = pa.memory_map(path)
    if source.read(6) == b"ARROW1":
        return pa.ipc.open_file(source)
    source.seek(0)
    return pa.ipc.open_stream(source)
