"""Feature files in npz or Parquet format, written in parts so that extraction can resume.

A file has named columns of equal length and, as JSON under `about`, a description of its origin:
model, data and protocol. During extraction its rows are in the folder `<file>.parts`.
"""

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vrl_jax import atomic_files, run_files

ABOUT = "about"
SUFFIXES = (".npz", ".parquet")


def check_path(path: Path) -> None:
    """Raise `ValueError` where the suffix is unknown, or is Parquet's and pyarrow is missing."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end with {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
        raise ValueError(f"{path} needs pyarrow: pip install 'vrl-jax[parquet]', or use .npz")


class FeatureParts:
    """The rows of a feature file extracted so far, in parts that are written atomically.

    Args:
      path: of the final file.
      about: description of its origin.

    Raises:
      ValueError: the folder has parts with another description.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.folder = path.with_name(f"{path.name}.parts")
        description = self.folder / f"{ABOUT}.json"
        if description.is_file():
            old = json.loads(description.read_text())
            atomic_files.check_same_settings(self.folder, old, about, "--out")
        else:
            if self.folder.exists():  # the origin of its parts is unknown
                self.remove()
            self.folder.mkdir(parents=True)
            atomic_files.write_text(description, json.dumps(about, indent=2))

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._paths())

    def add(self, **columns: np.ndarray) -> None:
        """Write the next part."""
        path = self.folder / f"{len(self):07}.npz"
        atomic_files.write_npz(path, columns)

    def join(self) -> dict[str, np.ndarray]:
        """Return the columns of all parts, concatenated.

        Raises:
          ValueError: a part is damaged.
        """
        try:
            parts = [run_files.read_arrays(path, []) for path in self._paths()]
        except ValueError as error:
            raise ValueError(f"{error}; delete {self.folder} to make all parts again") from None
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def remove(self) -> None:
        """Remove the folder of parts."""
        shutil.rmtree(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix == ".npz")


def write_columns(path: Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a feature file atomically; the same columns give the same bytes."""
    if path.suffix != ".parquet":
        atomic_files.write_npz(path, {**columns, ABOUT: np.array(json.dumps(about))})
        return
    with atomic_files.atomic_path(path) as partial:
        _save_parquet(partial, columns, about)


def read_about(path: Path) -> dict[str, Any]:
    """Return the description of a feature file; raises `ValueError` where it has none."""
    if path.suffix == ".parquet":
        import pyarrow.parquet  # optional, and slow to import

        text = (pyarrow.parquet.read_schema(path).metadata or {}).get(ABOUT.encode())
    else:
        with np.load(path) as columns:
            text = str(columns[ABOUT]) if ABOUT in columns else None
    if text is None:
        raise ValueError(f"{path} exists, but was not written by this command; choose another file")
    return json.loads(text)


def _save_parquet(path: Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    import pyarrow as pa  # optional, and slow to import
    import pyarrow.parquet

    def convert(array: np.ndarray) -> pa.Array:
        values = pa.array(array.reshape(-1).tolist() if array.dtype.kind == "U" else array.ravel())
        for length in reversed(array.shape[1:]):
            values = pa.FixedSizeListArray.from_arrays(values, length)
        return values

    table = pa.table({name: convert(array) for name, array in columns.items()})
    pa.parquet.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), path)
