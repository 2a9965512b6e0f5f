"""Encoding of videos with any checkpoint: command-line options and the compiled encoder."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vrl_jax.augment.clip_views import center_view
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.frame_sampling import LAYOUTS, Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput
from vrl_jax.evaluation.result_stamp import describe_input
from vrl_jax.pretrained import Pretrained
from vrl_jax.train.sharding import (
    batch_sharding,
    check_batch,
    compiler_options,
    make_mesh,
    replicated_sharding,
    shard_rows,
)


@dataclass(frozen=True)
class EncodeConfig:
    """Settings that turn videos into features.

    Attributes:
      sampling: the clips, evenly spaced.
      resize: height and width that frames are decoded to.
      batch: clips per step, over all devices of this process.
      loader: processes and buffers.
    """

    sampling: Sampling
    resize: tuple[int, int]
    batch: int
    loader: Loader

    def describe(self, model: Pretrained, pooling: str) -> dict[str, Any]:
        """Return all settings that features depend on besides weights and videos, as JSON."""
        test = EvalInput(self.sampling, self.resize, model.augment.size)
        return {**describe_input(test, model.augment), "pooling": pooling}


def compile_encoder(model: Pretrained, pick: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of (clips u8 [n t h w 3], more of n rows) to `pick(Features, more)`.

    It runs on all devices of this process, which must divide n.
    """

    def encode(variables: Any, clips: Array, *more: Array) -> Any:
        loaded = replace(model, variables=variables)
        return pick(loaded(center_view(clips, model.augment)), *more)

    return _compile(encode, model.variables)


def compile_with_parts(model: Pretrained) -> Callable[..., Any]:
    """Return a function of clips u8 [n t h w 3] to features and the method's parts, side by side.

    It runs on all devices of this process, which must divide n.
    """

    def encode(weights: Any, clips: Array) -> Array:
        variables, parts = weights
        views = center_view(clips, model.augment)
        features = replace(model, variables=variables)(views).clip
        return jnp.concatenate([features, model.parts.joined(parts, views)], axis=1)

    return _compile(encode, (model.variables, model.parts.weights))


def _compile(encode: Callable[..., Any], weights: Any) -> Callable[..., Any]:
    """Compile `encode(weights, *rows)`: weights are an argument, not constants of the program."""
    mesh = make_mesh(jax.local_devices())
    weights = jax.device_put(weights, replicated_sharding(mesh))
    compiled = jax.jit(
        encode, out_shardings=batch_sharding(mesh), compiler_options=compiler_options(mesh)
    )
    return lambda *rows: jax.device_get(compiled(weights, *(shard_rows(mesh, row) for row in rows)))


def pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the rows, padded with zero rows to `count`."""
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_encode_config` reads."""
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument("--frames", type=int, help="in a clip (default: the run's)")
    parser.add_argument("--stride", type=int, help="from frame to frame (default: the run's)")
    parser.add_argument("--fps", type=float, help="that the stride counts at; 0: the video's own")
    parser.add_argument("--layout", choices=LAYOUTS, help="of a video's clips (default: the run's)")
    parser.add_argument("--batch", type=int, default=64, help="clips at a time (default 64)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="that decode")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for a video")


def read_encode_config(
    model: Pretrained,
    args: argparse.Namespace,
    clips: int,
    resize: tuple[int, int] | None = None,
) -> EncodeConfig:
    """Return the settings of the options; missing ones are those of the encoder.

    Without a run, frames are decoded to the size that the weights expect.

    Raises:
      ValueError: neither options nor a run define the clips, or devices cannot share the batch.
    """
    options = vars(args)
    cut = {name: options[name] for name in ("frames", "stride", "fps", "layout")}
    cut = {name: value for name, value in cut.items() if value is not None}
    run = model.experiment
    if not model.sampling and not {"frames", "stride"} <= cut.keys():
        raise ValueError(f"{args.model} does not define its clips: pass --frames and --stride")
    cut |= {"clips": clips, "max_stride": 0.0}  # a stride is drawn in pretraining alone
    sampling = replace(model.sampling or Sampling(), **cut)
    resize = resize or (run.resize if run else (model.augment.size, model.augment.size))
    check_batch(make_mesh(jax.local_devices()), "batch", args.batch)
    loader = Loader(workers=args.workers, time_limit=args.time_limit)
    return EncodeConfig(sampling, resize, args.batch, loader)
