"""The folder of a run, local or on an object store.

Object stores cannot append to files, and a request per log line would be slow. A run on `gs://`
therefore writes its small files to a local copy of its folder, which starts with the files that are
there; only Orbax writes to the store directly. Changed files are uploaded before each checkpoint
and when the run ends, fails or is interrupted. Logs may thus be ahead of the newest checkpoint, but
never behind it; a resumed run removes records of later steps. Files of Weights & Biases are
uploaded only at the end.

Every process has a local copy. All processes but the first change only their quarantine list in it.
"""

import atexit
import os
import pathlib
import shutil
import tempfile
from collections.abc import Container
from dataclasses import dataclass

import fsspec

from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.report.remote_runs import CHECKPOINTS, WANDB, fetch_folder

SCHEME = "gs"  # on other stores Orbax cannot detect incomplete checkpoints


class LocalCopy:
    """A local copy of a remote folder, without checkpoints.

    Args:
      url: of the folder, which may not exist.

    Attributes:
      folder: the copy; removed by `close` and when the program ends.
    """

    def __init__(self, url: str):
        self._temporary = pathlib.Path(tempfile.mkdtemp(prefix="vrl_jax-"))
        atexit.register(shutil.rmtree, self._temporary, ignore_errors=True)
        self.folder = fetch_folder(url, self._temporary)
        self._store, self._root = fsspec.url_to_fs(url)
        self._uploaded = self._list_files()

    def push(self) -> None:
        """Upload changed files, except those of Weights & Biases, and remove deleted ones."""
        self._upload(self._list_files(exclude=(WANDB,)))

    def close(self) -> None:
        """Upload all files that have changed, and remove the copy."""
        self._upload(self._list_files())
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._uploaded = {}  # later pushes must not remove remote files

    def _upload(self, states: dict[str, tuple[int, int]]) -> None:
        changed = [name for name, state in states.items() if self._uploaded.get(name) != state]
        deleted = [self._remote_path(name) for name in self._uploaded if name not in states]
        if changed:
            contents = {name: (self.folder / name).read_bytes() for name in changed}
            self._store.pipe({self._remote_path(name): data for name, data in contents.items()})
        if deleted:
            self._store.rm(deleted)
        self._uploaded = states

    def _list_files(self, exclude: Container[str] = ()) -> dict[str, tuple[int, int]]:
        """Return size and time of every file by its path, without the folders in `exclude`."""
        states = {}
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in exclude]
            paths = (pathlib.Path(parent, name) for name in names)
            for path in filter(pathlib.Path.is_file, paths):
                state = path.stat()
                name = path.relative_to(self.folder).as_posix()
                states[name] = state.st_size, state.st_mtime_ns
        return states

    def _remote_path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@dataclass(frozen=True)
class Workdir:
    """The folder of a run; `workdir / "name"` is the local path of a small file in it.

    As a context manager it uploads all files of a remote folder and removes the local copy.

    Attributes:
      path: of the folder, which contains the checkpoints.
      local: folder of all other files: `path` itself or a local copy.
      copy: the local copy of a remote folder; None if the folder is local.
    """

    path: AnyPath
    local: pathlib.Path
    copy: LocalCopy | None = None

    def __enter__(self) -> "Workdir":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Upload all files of a remote folder, also after an error."""
        if self.copy:
            self.copy.close()

    def __truediv__(self, name: str) -> pathlib.Path:
        """Return the local path of a small file."""
        return self.local / name

    @property
    def checkpoints(self) -> AnyPath:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def subfolder(self, name: str) -> "Workdir":
        """Return a folder inside this one."""
        return Workdir(self.path / name, self.local / name, self.copy)

    def push(self) -> None:
        """Upload the changed files of a remote folder."""
        if self.copy:
            self.copy.push()


def open_workdir(path: str | AnyPath) -> Workdir:
    """Return the folder of a new or existing run.

    Raises:
      ValueError: an address is not on `gs://`, names a bucket instead of a folder in it, cannot be
        read, or is not that of a run; or the client of the store is not installed.
    """
    if not remote_paths.is_remote(path):
        local = remote_paths.to_path(path).absolute()
        return Workdir(local, local)
    scheme, _, rest = str(path).partition("://")
    if scheme != SCHEME:
        raise ValueError(
            f"workdir must be a local path or begin with {SCHEME}://, got {path}: on other stores "
            "incomplete checkpoints cannot be detected"
        )
    if "/" not in rest.strip("/"):
        raise ValueError(
            f"workdir must be a folder in a bucket, as {SCHEME}://bucket/runs/x, got {path}"
        )
    path = remote_paths.to_path(path)
    copy = LocalCopy(str(path))
    return Workdir(path, copy.folder, copy)
