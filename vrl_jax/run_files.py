"""Reading of JSON and npz files, with errors that name the file."""

import json
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]
# NumPy parses the header of an array as Python; zipfile refuses methods that it does not know.
UNREADABLE = (
    *(ValueError, EOFError, OSError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_json(path: Path) -> Record:
    """Return the JSON object in a file.

    Raises:
      ValueError: the file is not JSON, or holds something else than an object.
    """
    try:
        content = escape_surrogates(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, got a {type(content).__name__}")
    return content


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Return all arrays of an npz file.

    Raises:
      ValueError: the file cannot be read, or lacks one of the arrays `names`.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {name: _escape_array(npz[name]) for name in npz.files}
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    absent = [name for name in names if name not in arrays]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays)}")
    return arrays


def escape_surrogates(content: Any) -> Any:
    """Return a JSON tree without lone surrogates, as from file names that are not UTF-8."""
    match content:
        case str():
            return content.encode("utf-8", "backslashreplace").decode()
        case list():
            return [escape_surrogates(value) for value in content]
        case dict():
            return {escape_surrogates(key): escape_surrogates(content[key]) for key in content}
    return content


def _escape_array(array: np.ndarray) -> np.ndarray:
    return np.array(escape_surrogates(array.tolist()), str) if array.dtype.kind == "U" else array
