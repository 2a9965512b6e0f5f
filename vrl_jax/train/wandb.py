"""Optional logging to Weights & Biases."""

import importlib.util
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from vrl_jax import atomic_files

ID = "wandb_id"  # file in the run's folder


class WandbWriter:
    """Writer to the Weights & Biases run of a folder, which a resumed run continues.

    `WANDB_MODE=offline` stores records in the folder, for `wandb sync`; if the folder is on an
    object store, they are copied when the run ends.

    Args:
      project: of the run.
      workdir: folder of the run; stores the id of its Weights & Biases run.
      config: of the run, shown with it.
    """

    def __init__(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]):
        import wandb  # optional dependency

        id_file = workdir / ID
        if not id_file.exists():
            atomic_files.write_text(id_file, uuid.uuid4().hex[:8])
        self._run = wandb.init(
            project=project,
            id=id_file.read_text(),
            name=workdir.name,
            dir=str(workdir),
            config=dict(config),
            resume="allow",
        )
        # W&B's own step counter cannot go back, as a resumed run does.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send one record."""
        self._run.log({"step": step, **values})

    def close(self, failed: bool) -> None:
        """Send the remaining records and the exit status."""
        self._run.finish(exit_code=int(failed))


def check_installed() -> None:
    """Raise `ValueError` if the package is not installed."""
    if not importlib.util.find_spec("wandb"):
        raise ValueError(
            "--wandb needs the package wandb: pip install 'vrl-jax[wandb]', or drop --wandb"
        )
