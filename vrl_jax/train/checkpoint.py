"""What survives a process: the train state, with the config and the data's identity beside it.

Orbax writes asynchronously and atomically: a checkpoint that was being written when the process
died has a temporary name, or on an object store lacks the file that is written last, and is never
offered. The step number is also the state of the data, so nothing else needs saving.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vrl_jax.data.storage import AnyPath
from vrl_jax.files import check_same_settings
from vrl_jax.train.step import TrainState


class Checkpoints:
    """The checkpoints of one run; close it, or use it in a `with`, so that saves are finished.

    Args:
      folder: where they lie.
      keep: how many of the latest to keep; the best by `score` is kept as well.
      identity: what a run must have in common with the checkpoint it resumes from, as JSON.
      accept_changes: resume although that differs.
      before_save: is called first whenever a state is to be saved.
      encoder: the train state to the encoder's {"params": ..., "batch_stats": ...}, which every
        checkpoint then holds as an item of its own, for `restore_encoder`; None stores no encoder.

    Raises:
      ConfigMismatch: the folder holds checkpoints of another config or data set.
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
        there = self._folder.is_dir()  # a folder is made when it is needed
        if there and self.latest() is not None and not accept_changes:
            self._check_identity()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        best = policies.BestN(get_metric_fn=_score, n=1)
        policy = policies.AnyPreservationPolicy([policies.LatestN(self._keep), best])
        # Without `best_fn` scores are not written, and a run that goes on keeps all it finds.
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_score)
        return ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Finish the saves under way; a failed one raises here."""
        self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, train: TrainState, score: float) -> None:
        """Start to write the state; a save of an earlier step that failed raises here."""
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
        if not self._manager.save(step, args=args, metrics={"score": score}, force=True):
            raise OSError(f"the checkpoint of step {step} was not written")

    def restore(self, like: TrainState) -> TrainState:
        """Return the newest state, placed as `like` is."""
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like._asdict()
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return TrainState(**self._manager.restore(self.latest(), args=items)["state"])

    def _check_identity(self) -> None:
        items = ocp.args.Composite(identity=ocp.args.JsonRestore())
        saved = self._manager.restore(self.latest(), args=items)["identity"]
        folder = self._manager.directory.parent
        check_same_settings(folder, saved, self._identity, "--workdir")


def steps_in(folder: AnyPath) -> list[int]:
    """Return the steps of the whole checkpoints in a folder."""
    steps = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(int(path.name) for path in steps if ocp.utils.is_checkpoint_finalized(path))


def restore_encoder(folder: AnyPath, step: int | None = None) -> tuple[int, dict[str, Any]]:
    """Read the encoder of a run's checkpoint, whatever was trained around it.

    Args:
      folder: the checkpoints.
      step: which one; the newest by default.

    Returns:
      the step, and {"params": ..., "batch_stats": ...} as NumPy arrays.

    Raises:
      ValueError: there is no such checkpoint, or it has no encoder of its own.
    """
    steps = steps_in(folder)
    if not steps:
        raise ValueError(f"there is no checkpoint in {folder}")
    step = max(steps) if step is None else step
    if step not in steps:
        raise ValueError(f"no checkpoint of step {step} in {folder}: there are {sorted(steps)}")
    path = _absolute(folder) / str(step) / "encoder"
    if not path.is_dir():
        raise ValueError(
            f"the checkpoint of step {step} in {folder} has no item 'encoder': it was written by a "
            "version before 0.1.0, train again"
        )
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        stored = handler.metadata(path).tree  # `reader.metadata` misses a file of whole steps
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        encoder = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=plain))
    return step, {"batch_stats": {}, **encoder}


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _absolute(folder: AnyPath) -> AnyPath:
    return folder if folder.is_absolute() else folder.absolute()  # which breaks `gs://`
