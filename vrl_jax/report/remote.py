"""Runs on object stores, `gs://bucket/...`: what they left is copied to this machine."""

import os
from pathlib import Path

import fsspec

CHECKPOINTS = "checkpoints"


def is_remote(workdir: str) -> bool:
    """Return whether a run's folder is on an object store."""
    return "://" in workdir


def fetch(url: str, into: Path) -> Path:
    """Copy a run's folder without its checkpoints, and return the copy: empty if there is none.

    The copy's path ends as the address does, by which reports name runs.

    Raises:
      ValueError: nothing is known of such an address, or its client is not installed.
    """
    try:
        files, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: {error} (gs:// wants pip install 'vrl-jax[gcs]')") from error
    folder = into / url.partition("://")[2]
    folder.mkdir(parents=True, exist_ok=True)
    files.invalidate_cache()  # the run may be going on
    found = []
    for at, folders, names in files.walk(root, detail=True):
        folders.pop(CHECKPOINTS, None)
        found += [os.path.join(at, name) for name in names if name]
    if found:
        files.get(found, [str(folder / os.path.relpath(path, root)) for path in found])
    return folder
