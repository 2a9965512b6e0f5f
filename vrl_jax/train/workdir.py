"""The folder of a run, on this machine or on an object store.

Object stores cannot append to a file, and a request for each line of a log would be slow. So a run
on `gs://` writes its small files to a local shadow of its folder, which begins with what was there;
Orbax alone writes to the store itself. What has changed in the shadow is copied back before each
checkpoint is written, and when the run ends, is asked to stop, or fails. Logs may thus be ahead of
the newest checkpoint, and never behind it: a run that goes on forgets what they say of later steps.
What Weights & Biases keeps there is copied at the end alone.

Each process has a shadow. All but the first change nothing in it but their own quarantine list.
"""

import atexit
import os
import pathlib
import shutil
import tempfile
from collections.abc import Container
from dataclasses import dataclass

import fsspec

from vrl_jax.data import storage
from vrl_jax.data.storage import AnyPath
from vrl_jax.report.storage import CHECKPOINTS, WANDB, fetch_folder

SCHEME = "gs"  # on other stores Orbax cannot tell a whole checkpoint from a part of one


class RemoteCopy:
    """A local copy of a remote folder, checkpoints aside.

    Args:
      url: of the folder, which need not be there.

    Attributes:
      folder: the copy; it is gone once closed, and when the program ends.
    """

    def __init__(self, url: str):
        self._into = pathlib.Path(tempfile.mkdtemp(prefix="vrl_jax-"))
        atexit.register(shutil.rmtree, self._into, ignore_errors=True)
        self.folder = fetch_folder(url, self._into)
        self._files, self._root = fsspec.url_to_fs(url)
        self._known = self._look()

    def push(self) -> None:
        """Make the remote files what the local ones are: copies what has changed since."""
        self._copy(self._look(but=(WANDB,)))

    def close(self) -> None:
        """Copy what has changed, other programs' files too, and remove the copy."""
        self._copy(self._look())
        shutil.rmtree(self._into, ignore_errors=True)
        self._known = {}  # what is not here any more is not gone there

    def _copy(self, found: dict[str, tuple[int, int]]) -> None:
        changed = [name for name, state in found.items() if self._known.get(name) != state]
        gone = [self._far(name) for name in self._known if name not in found]
        if changed:
            contents = {name: (self.folder / name).read_bytes() for name in changed}
            self._files.pipe({self._far(name): data for name, data in contents.items()})
        if gone:
            self._files.rm(gone)
        self._known = found

    def _look(self, but: Container[str] = ()) -> dict[str, tuple[int, int]]:
        """Return size and time of every file, by its path in the folder; leaves folders out."""
        states = {}
        for at, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in but]
            for path in filter(pathlib.Path.is_file, (pathlib.Path(at, name) for name in names)):
                state = path.stat()
                name = path.relative_to(self.folder).as_posix()
                states[name] = state.st_size, state.st_mtime_ns
        return states

    def _far(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@dataclass(frozen=True)
class Workdir:
    """A run's folder; `workdir / "name"` is the local path of a small file in it.

    Use it in a `with`, so that a remote one gets all that was written; what is local of that is
    gone afterwards.

    Attributes:
      place: what it is called, and where checkpoints are.
      local: where all other files are: `place` itself, or its shadow.
      shadow: what copies them; None where the folder is local.
    """

    place: AnyPath
    local: pathlib.Path
    shadow: RemoteCopy | None = None

    def __enter__(self) -> "Workdir":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Copy what was written, also after an error."""
        if self.shadow:
            self.shadow.close()

    def __truediv__(self, name: str) -> pathlib.Path:
        """Return the local path of a small file."""
        return self.local / name

    @property
    def checkpoints(self) -> AnyPath:
        """Where checkpoints are."""
        return self.place / CHECKPOINTS

    def part(self, name: str) -> "Workdir":
        """Return a folder in this one."""
        return Workdir(self.place / name, self.local / name, self.shadow)

    def push(self) -> None:
        """Copy what was written to where it belongs; nothing where that is where it is."""
        if self.shadow:
            self.shadow.push()


def open_workdir(path: str | AnyPath) -> Workdir:
    """Return the folder of a run that begins or goes on.

    Raises:
      ValueError: an address that is not on `gs://`, is a whole bucket, cannot be read, or is that
        of something else than a run; or its client is not installed.
    """
    if not storage.is_remote(path):
        local = pathlib.Path(path).absolute()
        return Workdir(local, local)
    scheme, _, rest = str(path).partition("://")
    if scheme != SCHEME:
        raise ValueError(
            f"workdir must be a local path or begin with {SCHEME}://, got {path}: on other stores "
            "checkpoints that were cut off look whole"
        )
    if "/" not in rest.strip("/"):
        raise ValueError(
            f"workdir must be a folder in a bucket, as {SCHEME}://bucket/runs/x, got {path}"
        )
    place = storage.to_path(path)
    shadow = RemoteCopy(str(place))
    return Workdir(place, shadow.folder, shadow)
