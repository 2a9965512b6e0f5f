"""Atomic file writes, and the check that existing output was made with the same settings."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class ConfigMismatch(ValueError):
    """Existing output was made with other settings or data; the message lists the differences."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` once it is on the disk.

    `path` is complete or absent, also after a power failure. An exception leaves it as it was.
    """
    partial = path.with_name(f"{path.name}.part")
    yield partial
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write arrays to an npz file atomically; the same arrays give the same bytes."""
    save = np.savez_compressed if compress else np.savez
    with atomic_path(path) as partial, partial.open("wb") as file:  # NumPy would append a suffix
        save(file, **arrays)


def check_same_settings(
    path: Any, old: Mapping[str, Any], new: Mapping[str, Any], option: str
) -> None:
    """Check that the output in `path` was made with the settings that are in use now.

    Args:
      path: the file or folder.
      old: the settings it was made with, as JSON.
      new: the current ones, as JSON.
      option: the command-line option that names another file or folder.

    Raises:
      ConfigMismatch: they differ.
    """
    differences = list_differences(old, new)
    if differences:
        raise ConfigMismatch(
            f"{path} was made with other settings: {'; '.join(differences)}. "
            f"Use the old settings or choose another {option}"
        )


def list_differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Return the leaves in which two JSON trees differ, as `a.b: was 1, is 2`, sorted by key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for name in sorted(old.keys() | new.keys())
            for line in list_differences(
                old.get(name), new.get(name), f"{key}.{name}" if key else str(name)
            )
        ]
    return [] if old == new else [f"{key}: was {old!r}, is {new!r}"]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
