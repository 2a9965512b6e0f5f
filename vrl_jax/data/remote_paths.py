"""Files on local disks and object stores (`gs://bucket/...`).

Nothing here imports JAX. Local paths need no client library. Object stores are read with fsspec,
whether or not TensorFlow is installed.
"""

import argparse
import io
import os
import pathlib

import fsspec
from etils import epath

# Otherwise etils reads them with TensorFlow wherever that is installed, which has other errors.
os.environ.setdefault("EPATH_USE_TF", "false")

AnyPath = pathlib.Path | epath.Path  # local, or on an object store
SCHEMES = ("gs", "s3", "az", "hf")  # supported by etils
SKIM_BYTES = 1 << 16  # block size of sparse reads


def is_remote(path: str | AnyPath) -> bool:
    """Return whether a path is on an object store."""
    return "://" in str(path)


def to_path(path: str | AnyPath) -> AnyPath:
    """Return the path object of a local path, in which `~` is the home folder, or an address.

    Raises:
      ValueError: the scheme of the address is unknown, or its client is not installed.
    """
    if not is_remote(path):
        return pathlib.Path(os.path.expanduser(path))
    scheme = str(path).partition("://")[0]
    if scheme not in SCHEMES:
        schemes = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"{path} must be a local path or begin with one of {schemes}")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise ValueError(f"{path}: {error} (gs:// needs pip install 'vrl-jax[gcs]')") from error
    return epath.Path(path)


def local_path(text: str) -> pathlib.Path:
    """Parse a command-line argument that must be a local path.

    Raises:
      argparse.ArgumentTypeError: the argument is an address on an object store.
    """
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"must be a local path, got {text}")
    return to_path(text)


def read_remote(path: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return the bytes `start` to `stop` (exclusive) of a file on an object store; all by default.

    Raises:
      OSError: the client raised any error.
    """
    try:
        files, name = fsspec.url_to_fs(path)
        return files.cat_file(name, start=start, end=stop)
    except Exception as error:
        raise OSError(_read_error(path, error)) from error


def open_sparse(path: str | AnyPath) -> io.IOBase:
    """Open a file for sparse reads."""
    if not is_remote(path):
        return open(path, "rb")
    files, name = fsspec.url_to_fs(str(path))
    return files.open(name, "rb", block_size=SKIM_BYTES)


def file_size(path: AnyPath) -> int:
    """Return the size of a file in bytes."""
    status = path.stat()
    return status.length if is_remote(path) else status.st_size


def read_text(path: AnyPath) -> str:
    """Return a UTF-8 text without byte order mark; line ends of any system become newlines.

    Raises:
      ValueError: the text has another encoding.
    """
    try:
        return io.TextIOWrapper(io.BytesIO(path.read_bytes()), "utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8 ({error})") from None


def to_text(name: str) -> str:
    r"""Return a file name with the bytes that are not UTF-8 escaped, as `caf\xe9`."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def is_folder(path: AnyPath) -> bool:
    """Return whether the folder exists; raises `ValueError` if the store cannot be read."""
    return _kind(path) == "directory" if is_remote(path) else path.is_dir()


def is_file(path: AnyPath) -> bool:
    """Return whether the file exists; raises `ValueError` if the store cannot be read."""
    return _kind(path) == "file" if is_remote(path) else path.is_file()


def list_names(folder: str) -> set[str]:
    """Return the names of the files in a folder on an object store; empty without the folder.

    Raises:
      ValueError: the store cannot be read.
    """
    return {name for name, is_file in _list_remote(folder) if is_file}


def list_entries(folder: AnyPath) -> tuple[list[str], list[str]]:
    """Return the names of the files and of the subfolders of a folder, each sorted.

    A link counts as what it points to, and as a file if that is missing.
    """
    if is_remote(folder):
        entries = _list_remote(str(folder))
    else:
        with os.scandir(folder) as scanned:
            entries = [(entry.name, not entry.is_dir()) for entry in scanned]
    files = sorted(name for name, is_file in entries if is_file)
    return files, sorted(name for name, is_file in entries if not is_file)


def _list_remote(folder: str) -> list[tuple[str, bool]]:
    """Return the names in a folder of an object store, and whether they are files."""
    try:
        files, name = fsspec.url_to_fs(folder)
        entries = files.ls(name, detail=True)
    except FileNotFoundError:
        return []
    except Exception as error:
        raise ValueError(_read_error(folder, error)) from error
    names = ((entry["name"].rstrip("/"), entry["type"] == "file") for entry in entries)
    return [(path.rpartition("/")[2], is_file) for path, is_file in names if path != name]


def _kind(path: AnyPath) -> str:
    """Return "file", "directory", or "" if the path does not exist."""
    try:
        files, name = fsspec.url_to_fs(str(path))
        return files.info(name)["type"]
    except FileNotFoundError:
        return ""
    except Exception as error:
        raise ValueError(_read_error(path, error)) from error


def _read_error(path: str | AnyPath, error: Exception) -> str:
    return f"{path} cannot be read: {str(error) or type(error).__name__}"
