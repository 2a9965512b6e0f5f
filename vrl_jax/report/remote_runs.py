"""Download of run folders from object stores such as `gs://bucket/...`."""

import re
from collections.abc import Iterator
from pathlib import Path

import fsspec

CHECKPOINTS = "checkpoints"
WANDB = "wandb"  # Weights & Biases writes there at any time
# Names by which a run's folder is recognised, also one that has just been started. The folder of
# an evaluation contains folders of encoders.
RUN_CONTENTS = re.compile(
    r"(config|environment)\.json|(metrics|probes|quarantine.*)\.jsonl|"
    rf"{CHECKPOINTS}|(un)?trained(-split\d+)?"
)


def is_remote(workdir: str) -> bool:
    """Return whether a run's folder is on an object store."""
    return "://" in workdir


def fetch_folder(url: str, into: Path) -> Path:
    """Copy a run's folder and return the copy, which is empty where the folder does not exist.

    Checkpoints and the files of Weights & Biases are not copied. The path of the copy ends like
    the URL, since reports name runs by their paths.

    Raises:
      ValueError: the protocol is unknown or its client is not installed, the folder cannot be
        read, or it is not a run's.
    """
    try:
        store, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: {error} (gs:// needs pip install 'vrl-jax[gcs]')") from error
    scheme, _, rest = url.partition("://")
    folder = into / scheme / rest
    folder.mkdir(parents=True, exist_ok=True)
    try:
        store.invalidate_cache()  # the run may still be writing
        names = sorted(_list(store, root))
        is_run = any(map(RUN_CONTENTS.fullmatch, names))
        paths = list(_find(store, root)) if is_run else []
        if paths:
            store.get([f"{root}/{path}" for path in paths], [str(folder / path) for path in paths])
    except Exception as error:  # every client raises its own types
        reason = str(error) or type(error).__name__
        raise ValueError(f"{url} cannot be read: {reason}") from error
    if names and not is_run:
        raise ValueError(
            f"{url} must be a run's folder, or a new one; it has neither config.json nor "
            f"{CHECKPOINTS}, but {', '.join(names[:3])}{' ...' * (len(names) > 3)}"
        )
    return folder


def restore_urls(text: str, into: Path) -> str:
    """Return a text in which paths of copies in `into` are replaced by the URLs of the runs."""
    return re.sub(rf"{re.escape(str(into))}/(\w+)/", r"\1://", text)


def _find(store: fsspec.AbstractFileSystem, folder: str) -> Iterator[str]:
    """Yield the relative paths of the files to copy."""
    for name, kind in _list(store, folder).items():
        if kind == "file":
            yield name
        elif name not in (CHECKPOINTS, WANDB):
            yield from (f"{name}/{path}" for path in _find(store, f"{folder}/{name}"))


def _list(store: fsspec.AbstractFileSystem, folder: str) -> dict[str, str]:
    """Return "file" or "directory" by the names in a folder; an absent folder is empty."""
    try:
        listing = store.ls(folder, detail=True)
    except FileNotFoundError:
        return {}
    kinds = {entry["name"].rstrip("/"): entry["type"] for entry in listing}
    kinds.pop(folder, None)  # an empty object that marks the folder
    return {path.rpartition("/")[2]: kind for path, kind in kinds.items()}
