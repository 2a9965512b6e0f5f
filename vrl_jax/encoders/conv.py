"""Space-time convolution that is quick on every backend, and the normalisation that follows it."""

import functools
from collections.abc import Iterator, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.types import Features

FORMULATIONS = ("auto", "native", "folded")


def check_compute(dtype: str, formulation: str) -> None:
    """Raise `ValueError` unless an encoder can compute in `dtype` and convolve by `formulation`."""
    check.one_of(("float32", "bfloat16"), dtype=dtype)
    check.one_of(FORMULATIONS, conv=formulation)


def formulation_on(platform: str) -> str:
    """Return what the formulation "auto" is on a platform: "cpu", "gpu" or "tpu"."""
    return "folded" if platform == "cpu" else "native"


def is_folded(formulation: str) -> bool:
    """Return whether a formulation, "auto" on the default backend, is `conv3d_folded`."""
    if formulation == "auto":
        formulation = formulation_on(jax.default_backend())
    return formulation == "folded"


def settle(x: Float[Array, "*shape"], formulation: str) -> Float[Array, "*shape"]:
    """Have a map written once where convolutions are folded, that is on CPU.

    XLA computes cheap maps again at every use, and a residual block's output takes all the blocks
    before it. It takes `vrl_jax.train.mesh.compiler_options` for XLA to heed this on CPU.
    """
    return lax.optimization_barrier(x) if is_folded(formulation) else x


def conv3d_native(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Convolve over time and space at once, padding each axis by (k-1)//2 on both sides."""
    padding = [((k - 1) // 2,) * 2 for k in kernel.shape[:3]]
    axes = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)


def conv3d_folded(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Compute `conv3d_native` as a sum over the kernel's time taps of per-frame convolutions.

    XLA's CPU backend has fast 2-D convolutions and matrix products but slow 3-D convolutions. Each
    tap convolves the frames that it meets alone, not those of the padding. A stem from few channels
    to few takes all taps in one convolution, which then has outputs enough to be quick; a
    convolution over time alone is a 2-D one over time and a frame's places in a row, unless most of
    its taps meet padding. In float32, three taps of time take pairs of frames together (`_pairs`),
    and three of height pairs of rows where there are channels enough for it to pay.
    """
    (taps, *extent, inputs, outputs), stride, space = kernel.shape, strides[0], strides[1:]
    if extent == [1, 1] and 1 < taps <= x.shape[1]:
        x = x[:, :, :: space[0], :: space[1]]
        y = _conv2d(x.reshape(*x.shape[:2], -1, inputs), kernel[:, 0], (stride, 1))
        return y.reshape(len(x), -1, *x.shape[2:4], outputs)
    if inputs < outputs and taps * outputs <= 64:
        wide = _conv_frames(x, jnp.concatenate(list(kernel), axis=-1), space)
        taken = jnp.split(wide, taps, axis=-1)
        convolve = lambda tap, met: taken[tap][:, met]  # noqa: E731
    elif axis := _paired_axis(x, kernel, strides):
        return _pairs(x[:, ::stride], kernel, axis, space)
    else:
        convolve = lambda tap, met: _conv_frames(x[:, met], kernel[tap], space)  # noqa: E731
    return sum(
        jnp.pad(convolve(tap, met), ((0, 0), padding, (0, 0), (0, 0), (0, 0)))
        for tap, met, padding in _meets(taps, x.shape[1], stride)
    )


def _meets(taps: int, length: int, stride: int) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Yield each tap that meets an axis, where it does, and how to pad what it yields there."""
    middle = (taps - 1) // 2
    end = (length + 2 * middle - taps) // stride  # the last place of the output
    for tap in range(taps):
        ahead = tap - middle
        first, last = max(0, -(ahead // stride)), min(end, (length - 1 - ahead) // stride)
        if first <= last:
            met = slice(first * stride + ahead, last * stride + ahead + 1, stride)
            yield tap, met, (first, end - last)


def _paired_axis(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> int:
    """Return the axis along which `_pairs` is quicker: 1 for time, 2 for height, 0 for none."""
    time, height, _, inputs, _ = kernel.shape
    if x.dtype != jnp.float32:
        return 0
    if time == 3 and strides[0] == 1 and x.shape[1] >= 4 and x.shape[1] % 2 == 0:
        return 1
    tall = inputs >= 128 and x.shape[2] >= 8 and x.shape[2] % 2 == 0
    return 2 if (time, height) == (1, 3) and strides[1:] == (1, 1) and tall else 0


def _pairs(x: jax.Array, kernel: jax.Array, axis: int, space: tuple[int, int]) -> jax.Array:
    """Convolve three taps of time (axis 1) or height (2): four products give two outputs, not six.

    Winograd's F(2, 3), as in Lavin and Gray (2015, arXiv 1509.09308).
    """
    n, tap = x.shape[axis], partial(lax.slice_in_dim, kernel, axis=axis - 1)
    x = jnp.pad(x, [(int(i == axis),) * 2 for i in range(x.ndim)])
    a, b, c, d = (lax.slice_in_dim(x, i, i + n - 1, 2, axis) for i in range(4))
    first, middle, last = tap(0, 1), tap(1, 2), tap(2, 3)
    p, q, r, s = (
        _conv_frames(part, weights[0], space)
        for part, weights in (
            (a - c, first),
            (b + c, (first + middle + last) / 2),
            (c - b, (first - middle + last) / 2),
            (b - d, last),
        )
    )
    y = jnp.stack([p + q + r, q - r - s], axis + 1)
    return y.reshape(*y.shape[:axis], n, *y.shape[axis + 2 :])


def _conv_frames(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Convolve frames; a map of fewer places than the kernel has takes a product for each tap.

    There XLA lets map and kernel change places, and has no quick kernel for what that gives.
    """
    (height, width), (rows, columns) = x.shape[2:4], kernel.shape[:2]
    if rows * columns > 1 and -(-height // strides[0]) * -(-width // strides[1]) >= rows * columns:
        y = _conv2d(x.reshape(-1, *x.shape[2:]), kernel, strides)
        return y.reshape(*x.shape[:2], *y.shape[1:])
    return sum(
        jnp.pad(
            _product(x[:, :, down, along], kernel[i, j]), ((0, 0), (0, 0), above, beside, (0, 0))
        )
        for i, down, above in _meets(rows, height, strides[0])
        for j, along, beside in _meets(columns, width, strides[1])
    )


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply by a matrix; as a product of two, whose gradient XLA computes without copies."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _conv2d(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    padding = [((k - 1) // 2,) * 2 for k in kernel.shape[:2]]
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)


class Conv3d(nn.Module):
    """A convolution over `b t h w c`, padded by (k-1)//2 on both sides of each axis.

    The kernel is (kt, kh, kw, in, out), drawn from a normal of variance 2 / fan-out (He et al.,
    2015), and the same for every formulation.

    Attributes:
      features: output channels.
      kernel: extent in time, height, width.
      strides: in time, height, width.
      formulation: "native", "folded" (see `conv3d_folded`), or "auto": folded on CPU.
      dtype: of the computation; the kernel and the bias are kept in float32.
      bias: whether to add one to each output channel; it starts at zero.
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
        draw = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", draw, (*self.kernel, x.shape[-1], self.features))
        convolve = conv3d_folded if is_folded(self.formulation) else conv3d_native
        y = convolve(x.astype(self.dtype), jnp.asarray(kernel, self.dtype), self.strides)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + jnp.asarray(bias, self.dtype)


def norm(
    train: bool, dtype: str, name: str, decay: float = 0.9, epsilon: float = 1e-5
) -> nn.BatchNorm:
    """Batch normalisation, by default with PyTorch's constants; variables are float32."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=decay, epsilon=epsilon, dtype=dtype, name=name
    )


class ConvNorm(nn.Module):
    """A convolution and its normalisation; with `mid` the convolution is (2+1)-dimensional.

    Then it is a spatial convolution to `mid` channels, normalisation, ReLU and a temporal
    convolution (Tran et al., 2018); each half takes its own share of the strides.

    Attributes:
      mid: channels between the spatial and the temporal half; 0 for one undivided convolution.
      features, kernel, strides, formulation, dtype: as in `Conv3d`.
      decay, epsilon: of the normalisation, see `norm`.
    """

    features: int
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    mid: int = 0
    formulation: str = "auto"
    dtype: str = "float32"
    decay: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"], train: bool) -> Float[Array, "b _ _ _ o"]:
        """Convolve and normalise `x`, by its own statistics if `train`."""
        how = {"formulation": self.formulation, "dtype": self.dtype}
        normed = partial(norm, train, self.dtype, decay=self.decay, epsilon=self.epsilon)
        (kt, kh, kw), (st, sh, sw) = self.kernel, self.strides
        if self.mid:
            x = Conv3d(self.mid, (1, kh, kw), (1, sh, sw), **how, name="spatial")(x)
            x = nn.relu(normed("middle")(x))
            x = Conv3d(self.features, (kt, 1, 1), (st, 1, 1), **how, name="temporal")(x)
        else:
            x = Conv3d(self.features, self.kernel, self.strides, **how, name="conv")(x)
        return normed("norm")(x)


def max_pool(
    x: Float[Array, "b t h w c"],
    window: tuple[int, int, int],
    strides: tuple[int, int, int],
    formulation: str,
    padding: Sequence[tuple[int, int]] | None = None,
) -> Float[Array, "b _ _ _ c"]:
    """Take the greatest in each window of time, height and width.

    Where convolutions are folded, it goes axis by axis: XLA's gradient of a whole window is slow on
    CPU. Places that are equally great then share the gradient; natively the first has it.

    Args:
      x: the map.
      window: extent in time, height, width.
      strides: in time, height, width.
      formulation: as of `Conv3d`.
      padding: before and after each axis; (k-1)//2 on both sides if not given.

    Raises:
      ValueError: the map is smaller than the window, so that nothing would be left of it.
    """
    padding = padding or [((k - 1) // 2,) * 2 for k in window]
    t, h, w = x.shape[1:4]
    if any(n + sum(pads) < k for n, pads, k in zip((t, h, w), padding, window, strict=True)):
        raise ValueError(f"clips are too small: pooling leaves nothing of a map of {t} x {h} x {w}")
    if not is_folded(formulation):
        return nn.max_pool(x, window, strides, padding)
    for axis, (size, stride, pads) in enumerate(
        zip(window, strides, padding, strict=True), start=1
    ):
        around = [pads if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, around, constant_values=-jnp.inf)
        end = x.shape[axis] - size + 1
        shifted = (lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(size))
        x = functools.reduce(jnp.maximum, shifted)
    return x


def pool(stages: list[Float[Array, "b _ _ _ _"]]) -> Features:
    """Average the last of the feature maps over space, and over space and time, in float32."""
    frames = stages[-1].mean((2, 3), dtype=jnp.float32)
    return Features(clip=frames.mean(1), frames=frames, stages=tuple(stages))


def frame_grid(features: Features, cells: int) -> Float[Array, "*b t d"]:
    """Average the last feature map over each of `cells` x `cells` regions, side by side in float32.

    One cell gives `Features.frames`. Where the sides are no multiples, neighbouring regions share a
    row or column (adaptive average pooling, as in PyTorch).

    Raises:
      ValueError: more cells than the map has rows or columns.
    """
    if cells == 1:
        return features.frames
    x = features.stages[-1].astype(jnp.float32)
    height, width = x.shape[-3:-1]
    if cells > min(height, width):
        raise ValueError(f"grid must be at most {min(height, width)}, the map's side, got {cells}")
    bins = _bins(height, cells), _bins(width, cells)
    x = jnp.einsum("...hwc,yh,xw->...yxc", x, *bins, precision="highest")
    return x.reshape(*x.shape[:-3], -1)


def _bins(length: int, cells: int) -> Float[Array, "cells length"]:
    """Return the weights that average each of `cells` nearly equal stretches of an axis."""
    low, place = jnp.arange(cells)[:, None] * length, jnp.arange(length) * cells
    inside = (place + cells > low) & (place < low + length)
    return inside / inside.sum(1, keepdims=True)
