"""The compiled part of a pretraining run, traced before anything is compiled or read."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vrl_jax.experiment import Experiment
from vrl_jax.methods.base import Method
from vrl_jax.train.sharding import (
    batch_sharding,
    check_batch,
    replicated_sharding,
    state_sharding,
)
from vrl_jax.train.train_step import TrainState, init_state, make_step
from vrl_jax.types import TrainLength


class Program(NamedTuple):
    """The functions that a run compiles.

    Attributes:
      method: functions of the method.
      horizon: length of the run.
      init: () -> the state before the first step, on the devices.
      step: (state, clips) -> (state, metrics), traced: see `vrl_jax.train.train_step.make_step`.
      state: shapes and placement of the first argument of `step`.
      clips: shape and placement of the second, u8[b k t h w 3].
    """

    method: Method
    horizon: TrainLength
    init: Callable[[], TrainState]
    step: jax.stages.Traced
    state: TrainState
    clips: jax.ShapeDtypeStruct


def make_program(
    experiment: Experiment, videos: int, mesh: Mesh, encoder: dict[str, Any] | None = None
) -> Program:
    """Return the functions of an experiment for a mesh, whose devices may be compile-only.

    Args:
      experiment: the settings.
      videos: number of pretraining videos.
      mesh: the devices.
      encoder: variables that the encoder starts from, see `load_init`; random by default.

    Raises:
      ValueError: a batch that the devices cannot share, a view of a clip that is not decoded, or
        components that do not fit together.
    """
    train, sampling = experiment.train, experiment.sampling
    check_batch(mesh, "train.batch", train.batch)
    if train.microbatch:
        check_batch(mesh, "train.microbatch", train.microbatch)
    horizon = train.horizon(videos)
    method = experiment.method.build(experiment.encoder, experiment.framework, horizon)
    _check_clips(experiment, method)
    optimizer = experiment.optim.build(train.batch, horizon.steps)
    settings = (experiment.augment, train.seed, mesh)
    clip = (sampling.clips, sampling.frames, *experiment.resize, 3)
    upper = jax.ShapeDtypeStruct((train.batch, *clip), jnp.uint8)
    init = functools.partial(init_state, method, optimizer, upper, *settings, encoder)
    shapes = jax.eval_shape(init)
    layout = state_sharding(mesh, shapes) if train.shard_state else None
    state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        jax.tree.broadcast(layout or replicated_sharding(mesh), shapes),
    )
    clips = jax.ShapeDtypeStruct(
        (train.batch * method.levels, *clip), jnp.uint8, sharding=batch_sharding(mesh)
    )
    step = make_step(method, optimizer, *settings, train.microbatch, layout).trace(state, clips)
    return Program(method, horizon, functools.partial(init, layout=layout), step, state, clips)


def _check_clips(experiment: Experiment, method: Method) -> None:
    """Raise `ValueError` if a view needs a clip that is not decoded."""
    needed = 1 + max(view.clip for view in method.views)
    if experiment.sampling.clips != needed:
        raise ValueError(
            f"sampling.clips is {experiment.sampling.clips}, but the method makes its views from "
            f"{needed}: pass --config.sampling.clips={needed}"
        )
