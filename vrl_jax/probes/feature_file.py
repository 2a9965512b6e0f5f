"""Features on disk: one file, NumPy's or Parquet, made of parts that survive a kill.

A file has named columns of one length, and beside them, as JSON under `about`, what made it: the
model, the data, the protocol. While it is being made, its rows lie in the folder `<file>.parts`.
"""

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vrl_jax import files

ABOUT = "about"
SUFFIXES = (".npz", ".parquet")


def check_path(path: Path) -> None:
    """Raise `ValueError` unless the path can be written: its suffix is known, and so is pyarrow."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end with {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
        raise ValueError(f"{path} needs pyarrow: pip install 'vrl-jax[parquet]', or take .npz")


class FeatureParts:
    """The rows of a file so far, in parts that are whole or not there.

    Args:
      path: of the file that they will make.
      about: what makes it.

    Raises:
      ValueError: there are parts that something else made.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.folder = path.with_name(f"{path.name}.parts")
        made = self.folder / f"{ABOUT}.json"
        if made.is_file():
            files.check_same_settings(self.folder, json.loads(made.read_text()), about, "--out")
        else:
            if self.folder.exists():  # nobody knows what made its parts
                self.remove()
            self.folder.mkdir(parents=True)
            files.write_text(made, json.dumps(about, indent=2))

    def __len__(self) -> int:
        """Return the number of whole parts."""
        return len(self._paths())

    def add(self, **columns: np.ndarray) -> None:
        """Write the next part."""
        path = self.folder / f"{len(self):07}.npz"
        files.write_npz(path, columns)

    def join(self) -> dict[str, np.ndarray]:
        """Return the columns of all parts, one after the other."""
        parts = [dict(np.load(path)) for path in self._paths()]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix == ".npz")


def write_columns(path: Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there; the same columns give the same bytes."""
    if path.suffix != ".parquet":
        files.write_npz(path, {**columns, ABOUT: np.array(json.dumps(about))})
        return
    with files.atomic_path(path) as partial:
        _save_parquet(partial, columns, about)


def read_about(path: Path) -> dict[str, Any]:
    """Return what made a file; raises `ValueError` where it says nothing of that."""
    if path.suffix == ".parquet":
        import pyarrow.parquet  # optional, and slow to import

        text = (pyarrow.parquet.read_schema(path).metadata or {}).get(ABOUT.encode())
    else:
        with np.load(path) as columns:
            text = str(columns[ABOUT]) if ABOUT in columns else None
    if text is None:
        raise ValueError(f"{path} is there, but this command did not write it")
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
