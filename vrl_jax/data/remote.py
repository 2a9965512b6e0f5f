"""Files on object stores, `gs://bucket/...`: found, and read whole or in stretches.

Nothing here imports JAX. What is local goes through none of it: `is_remote` is asked of a path's
text, and the operating system does the rest.
"""

import io
import pathlib

import fsspec
from etils import epath

Place = pathlib.Path | epath.Path  # a local path, or what acts like one on an object store
SCHEMES = ("gs", "s3", "az", "hf")  # those that etils knows
SKIM_BYTES = 1 << 16  # that a file of which little is wanted is read by


def is_remote(path: str | Place) -> bool:
    """Return whether a path is one on an object store."""
    return "://" in str(path)


def place(path: str | Place) -> Place:
    """Return a path that can be asked for files.

    Raises:
      ValueError: nothing is known of such an address, or its client is not installed.
    """
    if not is_remote(path):
        return pathlib.Path(path)
    scheme = str(path).partition("://")[0]
    if scheme not in SCHEMES:
        raise ValueError(f"{path} must be a local path or begin with one of {SCHEMES} and ://")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise ValueError(f"{path}: {error} (gs:// wants pip install 'vrl-jax[gcs]')") from error
    return epath.Path(path)


def read(path: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return a file on an object store, or its bytes from `start` to before `stop`.

    Raises:
      OSError: whatever went wrong; clients have errors of their own.
    """
    try:
        files, name = fsspec.url_to_fs(path)
        return files.cat_file(name, start=start, end=stop)
    except Exception as error:
        raise OSError(f"{path} cannot be read: {error or type(error).__name__}") from error


def skim(path: str | Place) -> io.IOBase:
    """Open a file of which little is wanted here and there."""
    if not is_remote(path):
        return open(path, "rb")
    files, name = fsspec.url_to_fs(str(path))
    return files.open(name, "rb", block_size=SKIM_BYTES)


def size(path: Place) -> int:
    """Return how many bytes a file has."""
    status = path.stat()
    return status.length if is_remote(path) else status.st_size


def read_text(path: Place) -> str:
    """Return a text in UTF-8 without the mark that may open it; all line ends become newlines."""
    return io.TextIOWrapper(io.BytesIO(path.read_bytes()), "utf-8-sig").read()


def names(folder: str) -> set[str]:
    """Return the names of the files in a folder on an object store; none where it is absent."""
    files, name = fsspec.url_to_fs(folder)
    try:
        listed = files.ls(name, detail=True)
    except FileNotFoundError:
        return set()
    return {at["name"].rpartition("/")[2] for at in listed if at["type"] == "file"}
