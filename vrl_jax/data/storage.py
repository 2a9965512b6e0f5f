"""Files on object stores, `gs://bucket/...`: found, and read whole or in stretches.

Nothing here imports JAX. A path's text says where it is. What takes local paths, too, leaves them
to the operating system: no client need be installed for those.
"""

import argparse
import io
import pathlib

import fsspec
from etils import epath

AnyPath = pathlib.Path | epath.Path  # a local path, or what acts like one on an object store
SCHEMES = ("gs", "s3", "az", "hf")  # those that etils knows
SKIM_BYTES = 1 << 16  # that a file of which little is wanted is read by


def is_remote(path: str | AnyPath) -> bool:
    """Return whether a path is one on an object store."""
    return "://" in str(path)


def to_path(path: str | AnyPath) -> AnyPath:
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


def local_path(text: str) -> pathlib.Path:
    """Return a path on this machine, as a command line gives it.

    Raises:
      argparse.ArgumentTypeError: it is an address.
    """
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"must be on this machine, got {text}")
    return pathlib.Path(text)


def read_remote(path: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return a file on an object store, or its bytes from `start` to before `stop`.

    Raises:
      OSError: whatever went wrong; clients have errors of their own.
    """
    try:
        files, name = fsspec.url_to_fs(path)
        return files.cat_file(name, start=start, end=stop)
    except Exception as error:
        raise OSError(_unread(path, error)) from error


def open_sparse(path: str | AnyPath) -> io.IOBase:
    """Open a file of which little is wanted here and there."""
    if not is_remote(path):
        return open(path, "rb")
    files, name = fsspec.url_to_fs(str(path))
    return files.open(name, "rb", block_size=SKIM_BYTES)


def file_size(path: AnyPath) -> int:
    """Return how many bytes a file has."""
    status = path.stat()
    return status.length if is_remote(path) else status.st_size


def read_text(path: AnyPath) -> str:
    """Return a text in UTF-8 without the mark that may open it; all line ends become newlines."""
    return io.TextIOWrapper(io.BytesIO(path.read_bytes()), "utf-8-sig").read()


def is_folder(path: AnyPath) -> bool:
    """Return whether there is such a folder; raises `ValueError` where that cannot be known."""
    return _kind(path) == "directory" if is_remote(path) else path.is_dir()


def is_file(path: AnyPath) -> bool:
    """Return whether there is such a file; raises `ValueError` where that cannot be known."""
    return _kind(path) == "file" if is_remote(path) else path.is_file()


def list_names(folder: str) -> set[str]:
    """Return the names of the files in a folder on an object store; none where it is absent.

    Raises:
      ValueError: that cannot be known.
    """
    try:
        files, name = fsspec.url_to_fs(folder)
        listed = files.ls(name, detail=True)
    except FileNotFoundError:
        return set()
    except Exception as error:
        raise ValueError(_unread(folder, error)) from error
    return {at["name"].rpartition("/")[2] for at in listed if at["type"] == "file"}


def _kind(path: AnyPath) -> str:
    """Return "file", "directory", or "" where there is nothing."""
    try:
        files, name = fsspec.url_to_fs(str(path))
        return files.info(name)["type"]
    except FileNotFoundError:
        return ""
    except Exception as error:
        raise ValueError(_unread(path, error)) from error


def _unread(path: str | AnyPath, error: Exception) -> str:
    return f"{path} cannot be read: {str(error) or type(error).__name__}"
