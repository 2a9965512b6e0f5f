"""Runs on object stores, `gs://bucket/...`: what they left is copied to this machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import fsspec

CHECKPOINTS = "checkpoints"
WANDB = "wandb"  # what another program writes, at any time
# What tells a run's folder, also of one that began just now; an evaluation's has those of trials.
SIGNS = re.compile(
    r"(config|environment)\.json|(metrics|probes|quarantine.*)\.jsonl|"
    rf"{CHECKPOINTS}|(given|untrained)(-split\d+)?"
)


def is_remote(workdir: str) -> bool:
    """Return whether a run's folder is on an object store."""
    return "://" in workdir


def fetch_folder(url: str, into: Path) -> Path:
    """Copy a run's folder, and return the copy: empty if there is none.

    Checkpoints and Weights & Biases' own files are left out. The copy's path ends as the address
    does, by which reports name runs.

    Raises:
      ValueError: nothing is known of such an address, or its client is not installed; it cannot be
        read, or is no run's.
    """
    try:
        files, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: {error} (gs:// wants pip install 'vrl-jax[gcs]')") from error
    scheme, _, rest = url.partition("://")
    folder = into / scheme / rest
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files.invalidate_cache()  # the run may be going on
        names = sorted(_list(files, root))
        known = any(map(SIGNS.fullmatch, names))
        found = list(_find(files, root)) if known else []
        if found:
            files.get([f"{root}/{name}" for name in found], [str(folder / name) for name in found])
    except Exception as error:  # clients have errors of their own
        reason = str(error) or type(error).__name__
        raise ValueError(f"{url} cannot be read: {reason}") from error
    if names and not known:
        raise ValueError(
            f"{url} must be a run's folder, or a new one: it has neither config.json nor "
            f"{CHECKPOINTS}, but {', '.join(names[:3])}{' ...' * (len(names) > 3)}"
        )
    return folder


def restore_urls(text: str, into: Path) -> str:
    """Return a text in which runs that were copied to `into` are called by their addresses."""
    return re.sub(rf"{re.escape(str(into))}/(\w+)/", r"\1://", text)


def _find(files: fsspec.AbstractFileSystem, folder: str) -> Iterator[str]:
    """Yield the paths in a folder of the files that are copied."""
    for name, kind in _list(files, folder).items():
        if kind == "file":
            yield name
        elif name not in (CHECKPOINTS, WANDB):
            yield from (f"{name}/{path}" for path in _find(files, f"{folder}/{name}"))


def _list(files: fsspec.AbstractFileSystem, folder: str) -> dict[str, str]:
    """Return what is in a folder, "file" or "directory" by name; nothing where it is absent."""
    try:
        listed = files.ls(folder, detail=True)
    except FileNotFoundError:
        return {}
    found = {at["name"].rstrip("/"): at["type"] for at in listed}
    found.pop(folder, None)  # an empty object that marks the folder
    return {path.rpartition("/")[2]: kind for path, kind in found.items()}
