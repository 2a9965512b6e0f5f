"""A run's encoder, to go on with: `encoder = pretrained.load("runs/mine"); encoder(clips).clip`."""

import json
import pathlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vrl_jax import config
from vrl_jax.config import Experiment
from vrl_jax.data.augment import center_view
from vrl_jax.train.checkpoint import restore_encoder
from vrl_jax.types import Features


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its weights, and how it was trained.

    Attributes:
      experiment: the run's config.
      step: the checkpoint's.
      variables: {"params": ..., "batch_stats": ...}, for `experiment.encoder.module()`.
    """

    experiment: Experiment
    step: int
    variables: dict[str, Any]

    def __call__(self, views: Float[Array, "b t h w 3"]) -> Features:
        """Encode clips that are prepared as evaluation does, with fixed statistics."""
        return self.experiment.encoder.module().apply(self.variables, views, False)

    def prepare(self, clips: UInt8[np.ndarray, "b t h w 3"]) -> Float[Array, "b t s s 3"]:
        """Return decoded clips as evaluation sees them: their central square, normalised."""
        return center_view(jnp.asarray(clips), self.experiment.augment)


def load(workdir: str | pathlib.Path, step: int | None = None) -> Pretrained:
    """Return the encoder of a run's newest checkpoint, or of the given step's.

    Raises:
      ValueError: the folder holds no run, or no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{workdir} holds no run: there is no {path}")
    experiment = config.build(json.loads(path.read_text()))
    step, variables = restore_encoder(workdir / "checkpoints", step)
    return Pretrained(experiment, step, jax.device_put(variables))
