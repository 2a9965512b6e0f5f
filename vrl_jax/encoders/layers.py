"""Layers that encoders share: space-time convolution, batch normalisation and pooling."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.conv3d import (
    conv3d_native,
    conv3d_per_tap,
    conv3d_planar,
    max_pool_by_axis,
)
from vrl_jax.types import Features

FORMULATIONS = {"native": conv3d_native, "planar": conv3d_planar, "per_tap": conv3d_per_tap}


def check_compute(dtype: str, formulation: str) -> None:
    """Raise `ValueError` unless `dtype` and `formulation` are among those of encoders."""
    check.one_of(("float32", "bfloat16"), dtype=dtype)
    check.one_of(("auto", *FORMULATIONS), conv=formulation)


def default_formulation(platform: str, dtype: str) -> str:
    """Return the formulation that "auto" selects.

    XLA's GPU backend keeps 3-D convolutions channels-first, and in float32 also the 2-D ones of
    GPUs before Hopper. Planar convolutions would then add transposes.

    Args:
      platform: "cpu", "gpu" or "tpu".
      dtype: of the computation.
    """
    if platform == "gpu":
        return "planar" if dtype == "bfloat16" else "native"
    return "per_tap" if platform == "cpu" else "native"


def resolve_formulation(formulation: str, dtype: str = "float32") -> str:
    """Return the formulation, for "auto" that of the default backend."""
    if formulation == "auto":
        return default_formulation(jax.default_backend(), dtype)
    return formulation


def materialize(x: Float[Array, "*shape"], formulation: str) -> Float[Array, "*shape"]:
    """Keep XLA from recomputing a feature map at every use, if convolutions are per tap (on CPU).

    XLA recomputes cheap maps, and the output of a residual block depends on all blocks before it.
    On CPU, XLA respects this only with `vrl_jax.train.sharding.compiler_options`.
    """
    return lax.optimization_barrier(x) if resolve_formulation(formulation) == "per_tap" else x


class Conv3d(nn.Module):
    """3-D convolution of `b t h w c` with padding (k-1)//2 on both sides of each axis.

    The kernel (kt, kh, kw, in, out) is initialised from a normal distribution of variance
    2 / fan-out (He et al., 2015) and is the same for every formulation.

    Attributes:
      features: output channels.
      kernel: extent in time, height, width.
      strides: in time, height, width.
      formulation: "native", "planar" or "per_tap" (`conv3d_native` ...), or "auto": see
        `default_formulation`.
      dtype: of the computation; kernel and bias are float32.
      bias: whether output channels have a bias, initialised to zero.
    """

    features: int
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    formulation: str = "auto"
    dtype: str = "float32"
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"]) -> Float[Array, "b _ _ _ o"]:
        """Convolve `x`."""
        he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", he_normal, (*self.kernel, x.shape[-1], self.features))
        convolve = FORMULATIONS[resolve_formulation(self.formulation, self.dtype)]
        y = convolve(x.astype(self.dtype), jnp.asarray(kernel, self.dtype), self.strides)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + jnp.asarray(bias, self.dtype)


def batch_norm(
    train: bool,
    dtype: str,
    name: str | None,
    decay: float = 0.9,
    epsilon: float = 1e-5,
    two_pass: bool = False,
) -> nn.BatchNorm:
    """Return batch normalisation, by default with PyTorch's constants; variables are float32.

    The variance is E[x²] - E[x]², in one pass over the map. It loses digits in a channel whose mean
    is large beside its spread: 12% at a ratio of 100. Convolutions of normalised inputs are far
    from that, and a second pass moves about 2% more bytes in an R3D-18 step. Heads and probes, with
    inputs of any scale, take two passes; `two_pass` does so here, as PyTorch does.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=decay,
        epsilon=epsilon,
        dtype=dtype,
        use_fast_variance=not two_pass,
        name=name,
    )


class ConvNorm(nn.Module):
    """A convolution and batch normalisation; with `mid` the convolution is (2+1)-dimensional.

    A (2+1)D convolution is a spatial convolution to `mid` channels, batch normalisation, ReLU and a
    temporal convolution (Tran et al., 2018), each with its part of the strides.

    Attributes:
      mid: channels between the spatial and the temporal convolution; 0 for a 3-D convolution.
      features, kernel, strides, formulation, dtype: as in `Conv3d`.
      decay, epsilon, two_pass: of the normalisation, see `batch_norm`.
    """

    features: int
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    mid: int = 0
    formulation: str = "auto"
    dtype: str = "float32"
    decay: float = 0.9
    epsilon: float = 1e-5
    two_pass: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"], train: bool) -> Float[Array, "b _ _ _ o"]:
        """Convolve and normalise `x`, with batch statistics if `train`."""
        options = {"formulation": self.formulation, "dtype": self.dtype}
        norm = partial(
            batch_norm,
            train,
            self.dtype,
            decay=self.decay,
            epsilon=self.epsilon,
            two_pass=self.two_pass,
        )
        (kt, kh, kw), (st, sh, sw) = self.kernel, self.strides
        if self.mid:
            x = Conv3d(self.mid, (1, kh, kw), (1, sh, sw), **options, name="spatial")(x)
            x = nn.relu(norm("middle")(x))
            x = Conv3d(self.features, (kt, 1, 1), (st, 1, 1), **options, name="temporal")(x)
        else:
            x = Conv3d(self.features, self.kernel, self.strides, **options, name="conv")(x)
        return norm("norm")(x)


def max_pool(
    x: Float[Array, "b t h w c"],
    window: tuple[int, int, int],
    strides: tuple[int, int, int],
    formulation: str,
    padding: Sequence[tuple[int, int]] | None = None,
) -> Float[Array, "b _ _ _ c"]:
    """Return the maximum over windows of time, height and width.

    Where maxima tie, the first receives the gradient; with per-tap convolutions they share it.

    Args:
      x: the map.
      window: extent in time, height, width.
      strides: in time, height, width.
      formulation: as in `Conv3d`.
      padding: before and after each axis; by default (k-1)//2 on both sides.

    Raises:
      ValueError: the map is smaller than the window.
    """
    padding = padding or [((k - 1) // 2,) * 2 for k in window]
    t, h, w = x.shape[1:4]
    if any(n + sum(pads) < k for n, pads, k in zip((t, h, w), padding, window, strict=True)):
        raise ValueError(
            f"clips are too small: max pooling over {window} needs a larger map, "
            f"got {t} x {h} x {w}"
        )
    if resolve_formulation(formulation) != "per_tap":
        return nn.max_pool(x, window, strides, padding)
    return max_pool_by_axis(x, window, strides, padding)


def pool_features(stages: list[Float[Array, "b _ _ _ _"]]) -> Features:
    """Average the last feature map over space, and over space and time, in float32."""
    frames = stages[-1].mean((2, 3), dtype=jnp.float32)
    return Features(clip=frames.mean(1), frames=frames, stages=tuple(stages))


def pool_to_grid(features: Features, cells: int) -> Float[Array, "*b t d"]:
    """Average the last feature map over a `cells` x `cells` grid and concatenate, in float32.

    One cell gives `Features.frames`. If a side is not a multiple of `cells`, neighbouring cells
    share a row or column (adaptive average pooling, as in PyTorch).

    Raises:
      ValueError: the map has fewer rows or columns than `cells`.
    """
    if cells == 1:
        return features.frames
    x = features.stages[-1].astype(jnp.float32)
    height, width = x.shape[-3:-1]
    if cells > min(height, width):
        raise ValueError(
            f"grid must be at most {min(height, width)}, the shorter side of the map, got {cells}"
        )
    bins = average_bins(height, cells), average_bins(width, cells)
    x = jnp.einsum("...hwc,yh,xw->...yxc", x, *bins, precision="highest")
    return x.reshape(*x.shape[:-3], -1)


def pool_to_segments(frames: Float[Array, "*b t d"], segments: int) -> Float[Array, "*b n"]:
    """Average frame vectors over segments of the clip and concatenate them in order.

    The result holds an order of events, which the mean over time cannot. If the number of frames is
    not a multiple of `segments`, neighbouring segments share a frame.

    Raises:
      ValueError: fewer frames than segments.
    """
    if segments > frames.shape[-2]:
        raise ValueError(f"segments must be at most {frames.shape[-2]}, the frames, got {segments}")
    weights = average_bins(frames.shape[-2], segments)
    means = jnp.einsum("...td,st->...sd", frames.astype(jnp.float32), weights, precision="highest")
    return means.reshape(*means.shape[:-2], -1)


def average_bins(length: int, cells: int) -> Float[Array, "cells length"]:
    """Return weights that average an axis over `cells` intervals of nearly equal length.

    Where `length` is not a multiple of `cells`, neighbouring intervals share a position.
    """
    low, position = jnp.arange(cells)[:, None] * length, jnp.arange(length) * cells
    inside = (position + cells > low) & (position < low + length)
    return inside / inside.sum(1, keepdims=True)
