"""Reading of JSON and npz files, with errors that name the file."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


def read_json(path: Path) -> Record:
    """Return the JSON object in a file.

    Raises:
      ValueError: the file is not JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
            arrays = {name: npz[name] for name in npz.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    absent = [name for name in names if name not in arrays]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays)}")
    return arrays
