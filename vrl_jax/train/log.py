"""What a run says of itself: a JSON line and TensorBoard scalars a record, a progress bar."""

import json
import pathlib
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from vrl_jax import files
from vrl_jax.train.wandb import WandbWriter


class JsonlWriter:
    """One file of JSON lines, ordered by step; opening it at a step forgets what came later.

    Args:
      path: the file.
      step: where the run continues; records of later steps belong to a future that was lost, and
        at 0 all begins anew.

    Attributes:
      kept: the records that were there already.
    """

    def __init__(self, path: pathlib.Path, step: int):
        told = [json.loads(line) for line in _whole_lines(path)]
        self.kept = [record for record in told if step and record["step"] <= step]
        files.write_text(path, "".join(f"{json.dumps(record)}\n" for record in self.kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append one record and hand it to the operating system at once."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardWriter:
    """A file of scalars for TensorBoard, which forgets what came after a step.

    `SummaryWriter` hands what it gets to a thread, and its `flush` does not wait for that.

    Args:
      folder: gets the file.
      step: where the run continues.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of a step."""
        for name, value in values.items():
            self._add(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Have all on the disk that was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, step, **content):
        self._file.write_event(Event(wall_time=time.time(), step=step, **content))


class Log:
    """The log of one run; use it in a `with`.

    Args:
      workdir: gets `metrics.jsonl`, `probes.jsonl` and `tensorboard/`.
      step: where the run continues.
      total_steps: where it ends.
      quiet: show no progress bar.
      online: gets all scalars, too.

    Attributes:
      spent: seconds of training that are on record already.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        total_steps: int,
        quiet: bool = False,
        online: WandbWriter | None = None,
    ):
        self._online = online
        self._metrics = JsonlWriter(workdir / "metrics.jsonl", step)
        self._probes = JsonlWriter(workdir / "probes.jsonl", step)
        self.spent = self._metrics.kept[-1].get("wall_seconds", 0.0) if self._metrics.kept else 0.0
        self._board = TensorBoardWriter(workdir / "tensorboard", step)
        self._bar = tqdm(
            total=total_steps, initial=step, unit="step", disable=quiet, dynamic_ncols=True
        )

    def __enter__(self) -> "Log":
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Close all files."""
        self._metrics.close()
        self._probes.close()
        self._board.close()
        self._bar.close()
        if self._online:
            self._online.close(failed=kind is not None)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record what the train step reported."""
        self._metrics.write(step, values)
        self._scalars(step, values)

    def probes(self, step: int, values: dict[str, float]) -> None:
        """Record what the probes found."""
        self._probes.write(step, values)
        self._scalars(step, {f"probe/{name}": value for name, value in values.items()})
        self._bar.write(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))

    def flush(self) -> None:
        """Have all on the disk that was recorded: to come before a save."""
        self._board.flush()

    def advance(self, step: int, loss: float, speed: float) -> None:
        """Move the progress bar to `step`."""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} clips/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text)

    def _scalars(self, step, values):
        self._board.write(step, values)
        if self._online:
            self._online.write(step, values)


class NullLog:
    """A `Log` that says nothing: of the processes that are not the first."""

    spent = 0.0

    def __enter__(self) -> "Silence":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Do nothing."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    probes = metrics

    def flush(self) -> None:
        """Do nothing."""

    def advance(self, step: int, loss: float, speed: float) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""


def _whole_lines(path: pathlib.Path) -> list[str]:
    """Return the lines that were written to their end: a killed process may leave half a one."""
    if not path.exists():
        return []
    return path.read_text().split("\n")[:-1]
