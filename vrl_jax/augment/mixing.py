"""Mixup and CutMix of labelled views, and smoothed labels."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vrl_jax import check
from vrl_jax.augment.spatial_crops import mark_box


@dataclass(frozen=True)
class Mix:
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) within groups of videos.

    The views of a group are mixed with the same views in reverse order, all by the same draw, as
    timm does in its mode "batch", where a group is the batch of one process.

    Attributes:
      mixup: parameter a of the distribution Beta(a, a) of the share of a view; 0 disables mixup.
      cutmix: likewise, of the share outside the box that comes from the other view.
      switch: probability of CutMix where both are enabled.
      probability: of mixing a group at all.
      group: consecutive videos that are mixed with each other; 0 takes all videos of a micro-batch.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    probability: float = 1.0
    group: int = 0

    def __post_init__(self):
        check.at_least(0, mixup=self.mixup, cutmix=self.cutmix, group=self.group)
        check.fraction(switch=self.switch, probability=self.probability)

    def __bool__(self) -> bool:
        """Return whether views are mixed at all."""
        return bool(self.mixup or self.cutmix)


NO_MIX = Mix()


class MixedViews(NamedTuple):
    """Views of which each is mixed with another.

    Attributes:
      views: the mixed views.
      share: share of the label of the video that a view is of.
      others: labels of the videos that the rest is of.
    """

    views: Float[Array, "b v t h w 3"]
    share: Float[Array, "b v"]
    others: Int[Array, "b v"]


def mix_views(
    key: Key[Array, ""],
    views: Float[Array, "b v t h w 3"],
    labels: Int[Array, " b"],
    mix: Mix,
    rows: Int[Array, " b"],
) -> MixedViews:
    """Mix the views of each group of videos by one draw.

    Args:
      key: of this step; the draw of a group depends on it and on the first of its rows alone.
      views: v views of each of b videos.
      labels: of the videos.
      mix: what is mixed; `mix.group` must divide b.
      rows: of the videos in the global batch.
    """
    size = mix.group or len(views)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows[::size])

    def mix_group(key: Array, views: Array) -> tuple[Array, Array]:
        shares = draw_shares(key, views.shape[-3:-1], mix)[..., None]
        mixed = shares * views + (1 - shares) * views[::-1, ::-1]
        return mixed, jnp.full(views.shape[:2], shares.mean())

    groups = views.reshape(-1, size, *views.shape[1:])
    mixed, share = (x.reshape(-1, *x.shape[2:]) for x in jax.vmap(mix_group)(keys, groups))
    # By index: XLA partitions the reversal of a broadcast array in a loop wrongly.
    others = labels[jnp.arange(len(labels)).reshape(-1, size)[:, ::-1].reshape(-1)]
    return MixedViews(mixed, share, jnp.broadcast_to(others[:, None], share.shape))


def draw_shares(key: Key[Array, ""], frame: tuple[int, int], mix: Mix) -> Float[Array, "h w"]:
    """Return the share of every pixel that a view keeps; their mean is the share of its label.

    Mixup keeps the same share everywhere. CutMix keeps nothing in a box and all outside. The box
    has the sides of the frame times sqrt(1 - share), truncated; its centre is uniform among the
    pixels, and it is cut off at the border, so that the share is that of the cut box.
    """
    keys = jax.random.split(key, 5)
    cuts = jax.random.bernoulli(keys[0], mix.switch) if mix.mixup else True
    cuts = jnp.logical_and(cuts, mix.cutmix > 0)
    mixup, cutmix = [
        jax.random.beta(keys[1 + i], alpha, alpha) if alpha else jnp.float32(1)
        for i, alpha in enumerate((mix.mixup, mix.cutmix))
    ]
    center = jax.random.randint(keys[3], (2,), 0, jnp.array(frame))
    shares = jnp.where(cuts, 1.0 - cut_box(cutmix, center, frame), mixup)
    return jnp.where(jax.random.bernoulli(keys[4], mix.probability), shares, 1.0)


def cut_box(
    share: Float[Array, ""], center: Int[Array, "2"], frame: tuple[int, int]
) -> Float[Array, "h w"]:
    """Return a frame of zeros with ones in the box of CutMix, see `draw_shares`."""
    half = (jnp.array(frame) * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    return mark_box(center - half, 2 * half, frame).astype(jnp.float32)


def smooth_labels(labels: Int[Array, " b"], classes: int, smoothing: float) -> Float[Array, "b c"]:
    """Return (1 - s) one_hot + s / classes (Szegedy et al., 2016, arXiv 1512.00567)."""
    return (1 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes
