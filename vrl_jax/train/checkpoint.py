"""Checkpoints of a run: the train state, the encoder, and the identity of config and data.

Orbax writes asynchronously and atomically: an interrupted checkpoint has a temporary name, or on an
object store lacks its final marker, and is ignored. The step number determines the state of the
data, so nothing else needs saving.
"""

import contextlib
import functools
import gc
import inspect
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vrl_jax.atomic_files import ConfigMismatch, check_same_settings, list_differences
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.train.train_step import TrainState

LOCATIONS = ("root", "manifest", "data_dir", "annotations")  # fields of data sets


class DamagedCheckpoint(ValueError):
    """A checkpoint cannot be read; the message names it and the newest good one."""


class Checkpoints:
    """The checkpoints of a run, a context manager that finishes pending saves on exit.

    Args:
      folder: of the checkpoints.
      keep: number of latest checkpoints to keep; the best by `score` is kept as well.
      identity: settings that a run must share with the checkpoint it resumes from, as JSON.
      accept_changes: resume even if they differ.
      before_save: called before each save.
      encoder: the train state to {"params": ..., "batch_stats": ...} of the encoder, which
        checkpoints then hold as a separate item for `restore_encoder`; None stores no encoder.

    Raises:
      ConfigMismatch: the folder holds checkpoints of another config or data set.
      DamagedCheckpoint: a file of a checkpoint is missing or has other content.
    """

    def __init__(
        self,
        folder: AnyPath,
        keep: int,
        identity: dict[str, Any],
        accept_changes: bool = False,
        before_save: Callable[[], None] = lambda: None,
        encoder: Callable[[TrainState], dict[str, Any]] | None = None,
    ):
        self._folder, self._keep = _absolute(folder), keep
        self._identity, self._before_save, self._encoder = identity, before_save, encoder
        exists = self._folder.is_dir()  # the manager would create it
        if exists and self.latest() is not None and not accept_changes:
            self._check_identity()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        best = policies.BestN(get_metric_fn=_score, n=1)
        policy = policies.AnyPreservationPolicy([policies.LatestN(self._keep), best])
        # Without `best_fn` scores are not stored, and a resumed run would keep all old checkpoints.
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_score)
        with _explain_damage(self._folder):
            return ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Finish pending saves; raise the error of a failed one."""
        with _explain_full_disk(self._folder):
            self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, train: TrainState, score: float) -> None:
        """Start an asynchronous save; raise the error of an earlier save that failed."""
        self._before_save()
        step = int(train.step)
        if step == self.latest():
            return
        items = {
            "state": ocp.args.StandardSave(train._asdict()),
            "identity": ocp.args.JsonSave(self._identity),
        }
        if self._encoder is not None:
            items["encoder"] = ocp.args.StandardSave(self._encoder(train))
        args = ocp.args.Composite(**items)
        with _explain_full_disk(self._folder):
            saved = self._manager.save(step, args=args, metrics={"score": score}, force=True)
        if not saved:
            raise OSError(f"the checkpoint of step {step} was not written")

    def wait(self) -> None:
        """Wait until the pending save is on the disk; raise its error if it failed."""
        with _explain_full_disk(self._folder):
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Return the newest state, with the shapes and shardings of `like`.

        Raises:
          DamagedCheckpoint: a file of the checkpoint is missing or has other content.
          ConfigMismatch: its arrays have other names or shapes.
        """
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like._asdict()
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        try:
            with _explain_damage(self._folder):
                return TrainState(**self._manager.restore(self.latest(), args=items)["state"])
        except DamagedCheckpoint:
            raise
        except ValueError as error:
            raise ConfigMismatch(
                f"the arrays of {self._folder / str(self.latest())} do not fit the settings "
                f"({_first_line(error)}): use those it was written with, or another --workdir"
            ) from error

    def _check_identity(self) -> None:
        items = ocp.args.Composite(identity=ocp.args.JsonRestore())
        with _explain_damage(self._folder):
            saved = self._manager.restore(self.latest(), args=items)["identity"]
        folder = self._manager.directory.parent
        moved = saved != self._identity and _drop_locations(saved) == _drop_locations(
            self._identity
        )
        if moved and "data" in saved:  # the fingerprint
            if not jax.process_index():
                changes = "; ".join(list_differences(saved, self._identity))
                print(f"the data or weights have moved and are the same: {changes}")
            return
        check_same_settings(folder, saved, self._identity, "--workdir")


def list_steps(folder: AnyPath) -> list[int]:
    """Return the steps of the complete checkpoints in a folder."""
    steps = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(int(path.name) for path in steps if ocp.utils.is_checkpoint_finalized(path))


def restore_encoder(folder: AnyPath, step: int | None = None) -> tuple[int, dict[str, Any]]:
    """Read the encoder of a checkpoint, independently of method and framework.

    Args:
      folder: of the checkpoints.
      step: of the checkpoint; the newest by default.

    Returns:
      The step, and {"params": ..., "batch_stats": ...} as NumPy arrays.

    Raises:
      ValueError: there is no such checkpoint, it is damaged, or it has no item for the encoder.
    """
    steps = list_steps(folder)
    if not steps:
        raise ValueError(f"there is no checkpoint in {folder}")
    step = max(steps) if step is None else step
    if step not in steps:
        raise ValueError(
            f"step must be that of a checkpoint in {folder}, one of {steps}, got {step}"
        )
    path = _absolute(folder) / str(step)
    if (path / "state").is_dir() and not (path / "encoder").is_dir():
        raise ValueError(
            f"the checkpoint of step {step} in {folder} has no item 'encoder': it was written by a "
            "version before 0.1.0, train again"
        )
    with _explain_damage(folder, ("encoder",)):
        return step, {"batch_stats": {}, **_read_arrays(path / "encoder")}


def restore_weights(folder: AnyPath, step: int, like: Any) -> Any:
    """Read the parameters and the state of a method from a checkpoint.

    Args:
      folder: of the checkpoints.
      step: of the checkpoint, which exists.
      like: tree (params, state) of a method, for its structure.

    Returns:
      The tree with NumPy arrays.

    Raises:
      DamagedCheckpoint: a file of the checkpoint is missing or has other content.
      ConfigMismatch: the checkpoint lacks an array.
    """
    path = _absolute(folder) / str(step)
    with _explain_damage(folder):
        stored = _read_arrays(path / "state")
    stored = stored["params"], stored["state"]

    def find(keys, leaf):
        node = stored
        try:
            for key in keys:
                key = getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))
                node = node[key]
        except (KeyError, IndexError, TypeError):
            raise ConfigMismatch(
                f"{path} has no array {jax.tree_util.keystr(keys)}: it was written with another "
                "config"
            ) from None
        return node

    return jax.tree_util.tree_map_with_path(find, like)


def _drop_locations(identity: dict[str, Any]) -> dict[str, Any]:
    """Return an identity without the locations of data and weights, whose hashes it has as well."""
    settings = dict(identity.get("config", {}))
    settings.pop("init", None)
    data = settings.get("data")
    if isinstance(data, dict):
        settings["data"] = {key: value for key, value in data.items() if key not in LOCATIONS}
    return {**identity, "config": settings}


@contextlib.contextmanager
def _explain_full_disk(folder: AnyPath) -> Iterator[None]:
    """Replace TensorStore's error where there is no space, which reads like one of memory."""
    try:
        yield
    except Exception as error:
        if not re.search("No space left|quota exceeded", str(error)):
            raise
        step = max(list_steps(folder), default=0)
        raise OSError(
            f"no space is left for a checkpoint in {folder}: free some; the same command continues "
            f"from step {step}"
        ) from error


@contextlib.contextmanager
def _explain_damage(folder: AnyPath, trees: tuple[str, ...] = ("state",)) -> Iterator[None]:
    """Replace an error by one that names the damaged checkpoints of a folder, if there are any.

    Args:
      folder: of the checkpoints.
      trees: items of arrays that a good checkpoint has.
    """
    hook, damaged = sys.unraisablehook, []

    def report(event: Any) -> None:
        # Orbax abandons its other reads at the first error; their tracebacks would follow ours.
        if not inspect.iscoroutine(event.object) and "loop is closed" not in str(event.exc_value):
            hook(event)

    sys.unraisablehook = report
    try:
        yield
    except Exception as error:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it reports such reads as well
        steps = list_steps(folder)
        damaged = [step for step in steps if not _is_good(_absolute(folder) / str(step), trees)]
        gc.collect()  # deletes the abandoned reads while their tracebacks are withheld
        if not damaged:
            raise
        good = max(set(steps) - set(damaged), default=None)
        them = "it" if len(damaged) == 1 else "them"
        remedy = (
            "no other one is good: start anew in another folder"
            if good is None
            else f"delete {them} to continue from the newest good one, that of step {good}"
        )
        names = " and ".join(str(folder / str(step)) for step in damaged)
        raise DamagedCheckpoint(
            f"damaged checkpoint {names}: {remedy} ({_first_line(error)})"
        ) from error
    finally:
        if not damaged:  # otherwise abandoned reads can end later, until the process does
            sys.unraisablehook = hook


def _is_good(path: AnyPath, trees: tuple[str, ...]) -> bool:
    """Return whether all items of a checkpoint can be read."""
    try:
        for name in trees:
            _read_arrays(path / name)
        for name in ("identity/metadata", "metrics/metrics"):
            if "state" in trees or (path / name).is_file():  # an encoder is read without them
                json.loads((path / name).read_text())
    except Exception:
        return False
    return True


def _read_arrays(path: AnyPath) -> dict[str, Any]:
    """Return a tree of a checkpoint as NumPy arrays."""
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        stored = handler.metadata(path).tree  # `reader.metadata` needs metadata of the step
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def _score(metrics: dict[str, float]) -> float:
    score = metrics["score"]
    return -math.inf if math.isnan(score) else score  # Orbax sorts NaN above all numbers


def _absolute(folder: AnyPath) -> AnyPath:
    return folder if folder.is_absolute() else folder.absolute()  # `absolute` breaks `gs://`
