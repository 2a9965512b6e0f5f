"""JSON and arrays from files; what is wrong with one is told with its name."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


def json_object(path: Path) -> Record:
    """Return the JSON object in a file; `ValueError` where it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, got a {type(content).__name__}")
    return content


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Return all arrays in an npz; `ValueError` where one of those named is missing."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; it has {', '.join(found)}")
    return found
