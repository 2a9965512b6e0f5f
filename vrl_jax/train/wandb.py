"""A run's records on Weights & Biases, where they are asked for."""

import importlib.util
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from vrl_jax import files

ID = "wandb_id"  # file in the run's folder


class WandbWriter:
    """The Weights & Biases run of a folder: the one it had before, if it had any.

    `WANDB_MODE=offline` keeps everything in the folder, for `wandb sync`; a folder on an object
    store gets it when the run ends.

    Args:
      project: where it is listed.
      workdir: of the run; keeps its identity.
      config: of the run, shown beside it.
    """

    def __init__(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]):
        import wandb  # here: it need not be installed

        kept = workdir / ID
        if not kept.exists():
            files.write_text(kept, uuid.uuid4().hex[:8])
        self._run = wandb.init(
            project=project,
            id=kept.read_text(),
            name=workdir.name,
            dir=str(workdir),
            config=dict(config),
            resume="allow",
        )
        # W&B's own count of steps cannot go back, as a run does that is continued.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send one record."""
        self._run.log({"step": step, **values})

    def close(self, failed: bool) -> None:
        """Send what is left and say how the run ended."""
        self._run.finish(exit_code=int(failed))


def check_installed() -> None:
    """Raise `ValueError` where the package is not installed."""
    if not importlib.util.find_spec("wandb"):
        raise ValueError(
            "--wandb wants the package wandb: pip install 'vrl-jax[wandb]', or leave it out"
        )
