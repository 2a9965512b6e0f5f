"""Micro-batches: a global batch whose videos are embedded a few at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Tree = Any


@dataclass(frozen=True)
class MicroBatches:
    """The views of a global batch, generated one micro-batch at a time.

    Micro-batch i consists of the videos i, i + count, i + 2 count, ... of the batch. Where a batch
    is split over devices, each of them holds an equal share of every micro-batch, and micro-batches
    do not depend on the number of devices.

    Attributes:
      views: generates the views f32[b v t h w 3] of the micro-batch of a number.
      count: number of micro-batches.
      size: videos in a micro-batch.
    """

    views: Callable[[Int[Array, ""]], Float[Array, "b v t h w 3"]]
    count: int
    size: int

    def __len__(self) -> int:
        """Return the number of videos of the global batch."""
        return self.count * self.size

    def __getattr__(self, name: str):
        """Refuse what only an array of all views has."""
        raise AttributeError(
            f"micro-batches have no {name!r}: the method must embed videos with `embed_videos`, or "
            f"be trained with train.microbatch=0"
        )


Clips = Float[Array, "b v t h w 3"] | Float[np.ndarray, "b v t h w 3"] | MicroBatches
EmbedVideos = Callable[[Tree, Float[Array, "b v t h w 3"], Tree], tuple[Tree, Tree]]


def embed_videos(
    embed: EmbedVideos, carry: Tree, clips: Clips, context: Tree = None
) -> tuple[Tree, Tree]:
    """Embed the videos of a global batch, all together or one micro-batch after the other.

    A micro-batch keeps only what `embed` returns. Everything else, its views included, is computed
    again for the gradient, so memory does not grow with the number of micro-batches.

    Args:
      embed: (carry, clips, context) -> (carry, embedded), for any number of videos; every embedded
        array begins with the axis of videos.
      carry: passed from one micro-batch to the next, such as running statistics; it gets no
        gradient from later ones.
      clips: the views f32[b v t h w 3], or micro-batches of them.
      context: arrays that begin with the axis of videos, and are split as `clips` are.

    Returns:
      (carry, embedded), the latter for all videos in their order.

    Raises:
      ValueError: an embedded array that does not begin with the axis of videos.
    """
    if not isinstance(clips, MicroBatches):
        return embed(carry, clips, context)

    def step(carry, number):
        part = jax.tree.map(lambda x: strided_rows(x, number, clips.count), context)
        carry, embedded = embed(carry, clips.views(number), part)
        _check_embedded(embedded, clips.size)
        return jax.lax.stop_gradient(carry), embedded

    step = jax.checkpoint(step, prevent_cse=False)  # the loop keeps the two passes apart
    carry, columns = jax.lax.scan(step, carry, jnp.arange(clips.count))
    return carry, jax.tree.map(_join, columns)


def strided_rows(x: Array, first: Int[Array, ""], stride: int) -> Array:
    """Return the rows `first`, `first + stride`, ... of an array, which `stride` divides."""
    rows = x.reshape(-1, stride, *x.shape[1:])
    return jax.lax.dynamic_index_in_dim(rows, first, axis=1, keepdims=False)


def _join(columns: Array) -> Array:
    """Return the rows of all micro-batches in the order of the batch: inverse of `strided_rows`."""
    return jnp.swapaxes(columns, 0, 1).reshape(-1, *columns.shape[2:])


def _check_embedded(embedded: Tree, size: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(embedded):
        if leaf.shape[:1] != (size,):
            raise ValueError(
                f"arrays of a micro-batch must begin with its {size} videos, but "
                f"{jax.tree_util.keystr(path)} is {leaf.shape}"
            )
