"""Log of a run: JSON lines, TensorBoard scalars, Weights & Biases and a progress bar."""

import json
import operator
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from vrl_jax import atomic_files
from vrl_jax.train.wandb import WandbWriter


class JsonlWriter:
    """Writer of a file of JSON lines, ordered by step; opening it removes records of later steps.

    Args:
      path: the file.
      step: step at which the run continues; 0 removes all records.

    Raises:
      ValueError: a complete line is not a record.

    Attributes:
      previous: the records that the file had up to this step.
    """

    def __init__(self, path: pathlib.Path, step: int):
        records = _read_records(path)
        self.previous = [record for record in records if step and record["step"] <= step]
        atomic_files.write_text(
            path, "".join(f"{json.dumps(record)}\n" for record in self.previous)
        )
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append a record and flush it to the operating system."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _import_tensorboardx():
    """Import tensorboardX without PyTorch, which it would import where it is installed."""
    hidden = "torch" not in sys.modules
    if hidden:  # seconds, memory, and a second set of CUDA libraries
        sys.modules["torch"] = None
    try:
        import tensorboardX
    finally:
        if hidden:
            del sys.modules["torch"]
    return tensorboardX


class TensorBoardWriter:
    """Writer of TensorBoard scalars; TensorBoard discards earlier events after `step`.

    It replaces `SummaryWriter`, which writes in a thread and whose `flush` does not wait for it.

    Args:
      folder: for the event file.
      step: step at which the run continues.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        tensorboardX = _import_tensorboardx()
        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar = tensorboardX.proto.event_pb2.Event, tensorboardX.summary.scalar
        self._file = tensorboardX.event_file_writer.EventsWriter(str(folder / "events"))
        start = tensorboardX.proto.event_pb2.SessionLog.START
        self._add(step + 1, session_log={"status": start})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of a step."""
        for name, value in values.items():
            self._add(step, summary=self._scalar(name, value))

    def flush(self) -> None:
        """Flush all events to disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, step, **content):
        self._file.write_event(self._event(wall_time=time.time(), step=step, **content))


class Log:
    """The log of a run, used as a context manager.

    Args:
      workdir: folder for `metrics.jsonl`, `probes.jsonl` and `tensorboard/`.
      step: step at which the run continues.
      total_steps: length of the run.
      quiet: show no progress bar.
      wandb: also receives all scalars.

    Attributes:
      elapsed: seconds of training in earlier sessions.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        total_steps: int,
        quiet: bool = False,
        wandb: WandbWriter | None = None,
    ):
        self._wandb = wandb
        self._metrics = JsonlWriter(workdir / "metrics.jsonl", step)
        self._probes = JsonlWriter(workdir / "probes.jsonl", step)
        last = self._metrics.previous[-1] if self._metrics.previous else {}
        self.elapsed = last.get("wall_seconds", 0.0)
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
        if self._wandb:
            self._wandb.close(failed=kind is not None)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record the metrics of a train step."""
        self._metrics.write(step, values)
        self._scalars(step, values)

    def probes(self, step: int, values: dict[str, float]) -> None:
        """Record and print the results of the probes."""
        self._probes.write(step, values)
        self._scalars(step, {f"probe/{name}": value for name, value in values.items()})
        self._bar.write(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))

    def flush(self) -> None:
        """Flush all records to disk; call it before saving a checkpoint."""
        self._board.flush()

    def advance(self, step: int, loss: float, speed: float) -> None:
        """Move the progress bar to `step`."""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} clips/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def info(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text)

    def _scalars(self, step, values):
        self._board.write(step, values)
        if self._wandb:
            self._wandb.write(step, values)


class NullLog:
    """A `Log` without output, for all processes but the first."""

    elapsed = 0.0

    def __enter__(self) -> "NullLog":
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

    def info(self, text: str) -> None:
        """Do nothing."""


def _read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the records in the complete lines; a killed process may leave a partial last line."""
    records = []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            operator.index(record["step"])
        except (ValueError, TypeError, KeyError):  # for instance zeros after a power failure
            raise ValueError(
                f"{path}, line {number} must be a JSON object with a step, got {line[:20]!r}: "
                "delete the line"
            ) from None
        records.append(record)
    return records
