"""The folder of a run, on this machine or on an object store.

Object stores cannot append to a file, and a request for each line of a log would be slow. So a run
on `gs://` writes its small files to a local shadow of its folder, which begins with what was there;
Orbax alone writes to the store itself. What has changed in the shadow is copied back before each
checkpoint is written, and when the run ends, is asked to stop, or fails. Logs may thus be ahead of
the newest checkpoint, and never behind it: a run that goes on forgets what they say of later steps.

Each process has a shadow. All but the first change nothing in it but their own quarantine list.
"""

import atexit
import pathlib
import shutil
import tempfile
from dataclasses import dataclass

import fsspec

from vrl_jax.data import remote
from vrl_jax.data.remote import Place
from vrl_jax.report.remote import CHECKPOINTS, fetch

OTHERS = "wandb"  # a folder that another program writes to, at any time


class Shadow:
    """A local copy of a remote folder, checkpoints aside.

    Args:
      url: of the folder, which need not be there.

    Attributes:
      folder: the copy; it is gone when the program ends.
    """

    def __init__(self, url: str):
        self._files, self._root = fsspec.url_to_fs(url)
        into = pathlib.Path(tempfile.mkdtemp(prefix="vrl_jax-"))
        atexit.register(shutil.rmtree, into, ignore_errors=True)
        self.folder = fetch(url, into)
        self._known = self._look()

    def push(self) -> None:
        """Make the remote files what the local ones are: copies what has changed since."""
        found = self._look()
        changed = [name for name, state in found.items() if self._known.get(name) != state]
        gone = [self._far(name) for name in self._known if name not in found]
        if changed:
            contents = {name: (self.folder / name).read_bytes() for name in changed}
            self._files.pipe({self._far(name): data for name, data in contents.items()})
        if gone:
            self._files.rm(gone)
        self._known = found

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return size and time of every file, by its path in the folder."""
        states = {}
        for path in filter(pathlib.Path.is_file, self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if OTHERS not in name.parts:
                state = path.stat()
                states[name.as_posix()] = state.st_size, state.st_mtime_ns
        return states

    def _far(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@dataclass(frozen=True)
class Workdir:
    """A run's folder; `workdir / "name"` is the local path of a small file in it.

    Use it in a `with`, so that a remote one gets all that was written.

    Attributes:
      place: what it is called, and where checkpoints are.
      local: where all other files are: `place` itself, or its shadow.
      shadow: what copies them; None where the folder is local.
    """

    place: Place
    local: pathlib.Path
    shadow: Shadow | None = None

    def __enter__(self) -> "Workdir":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Copy what was written, also after an error."""
        self.push()

    def __truediv__(self, name: str) -> pathlib.Path:
        """Return the local path of a small file."""
        return self.local / name

    @property
    def checkpoints(self) -> Place:
        """Where checkpoints are."""
        return self.place / CHECKPOINTS

    def part(self, name: str) -> "Workdir":
        """Return a folder in this one."""
        return Workdir(self.place / name, self.local / name, self.shadow)

    def push(self) -> None:
        """Copy what was written to where it belongs; nothing where that is where it is."""
        if self.shadow:
            self.shadow.push()


def open_workdir(path: str | Place) -> Workdir:
    """Return the folder of a run that begins or goes on.

    Raises:
      ValueError: nothing is known of such an address, or its client is not installed.
    """
    place = remote.place(path)
    if not remote.is_remote(place):
        return Workdir(place.absolute(), place.absolute())
    shadow = Shadow(str(place))
    return Workdir(place, shadow.folder, shadow)
