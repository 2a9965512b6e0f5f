"""Formulations of 3-D convolution and max pooling by operations that are fast on a platform.

XLA's CPU backend is fast at 2-D convolutions and matrix products. It is slow at 3-D convolutions
and at gradients of pooling, and uses a naive loop where a map is smaller than the kernel. On GPU,
XLA gives the channels-last layout of tensor cores to 2-D convolutions only.
"""

import functools
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv3d_native(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Convolve over time and space, padding each axis by (k-1)//2 on both sides."""
    padding = [((k - 1) // 2,) * 2 for k in kernel.shape[:3]]
    axes = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)


def conv3d_planar(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Compute `conv3d_native` by a 2-D convolution where the kernel is flat.

    A kernel over one frame convolves all frames as a batch, and a kernel over time only convolves
    (time, flattened space); a kernel of one position is one or the other. It is no matrix product,
    because XLA's GPU compiler would fuse what precedes it, and does not always succeed. A kernel
    over time and space stays a 3-D convolution.

    A barrier keeps XLA from moving the final reshape into the operations that follow. Half of them
    would then have four axes, and maps between the halves would be stored.
    """
    taps, *extent = kernel.shape[:3]
    if extent == [1, 1] and (taps > 1 or max(strides[1:]) == 1):
        return lax.optimization_barrier(_conv_time(x, kernel, strides))
    if taps == 1:
        y = _fold_frames(x[:, :: strides[0]], kernel[0], strides[1:])
        return lax.optimization_barrier(y)
    return conv3d_native(x, kernel, strides)


def conv3d_per_tap(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Compute `conv3d_native` as a sum over temporal taps of per-frame 2-D convolutions.

    Each tap convolves only the frames that it overlaps, not the padding. Three cases are faster
    otherwise:

    * A stem with few channels computes all taps in one convolution, whose outputs are then wide
      enough to be fast.
    * A convolution over time only is a 2-D convolution over (time, flattened space), unless most of
      its taps overlap padding.
    * In float32, a kernel of three temporal taps computes pairs of frames at once, and one of three
      rows computes pairs of rows if it has enough channels (`_winograd`).
    """
    (taps, *extent, inputs, outputs), stride, space = kernel.shape, strides[0], strides[1:]
    if extent == [1, 1] and 1 < taps <= x.shape[1]:
        return _conv_time(x, kernel, strides)
    if inputs < outputs and taps * outputs <= 64:
        wide = _conv_frames(x, jnp.concatenate(list(kernel), axis=-1), space)
        by_tap = jnp.split(wide, taps, axis=-1)
        convolve = lambda tap, frames: by_tap[tap][:, frames]  # noqa: E731
    elif axis := _winograd_axis(x, kernel, strides):
        return _winograd(x[:, ::stride], kernel, axis, space)
    else:
        convolve = lambda tap, frames: _conv_frames(x[:, frames], kernel[tap], space)  # noqa: E731
    return sum(
        jnp.pad(convolve(tap, frames), ((0, 0), padding, (0, 0), (0, 0), (0, 0)))
        for tap, frames, padding in _overlaps(taps, x.shape[1], stride)
    )


def _overlaps(taps: int, length: int, stride: int) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Yield each tap that overlaps an axis, the overlap, and the padding of its contribution."""
    center = (taps - 1) // 2
    end = (length + 2 * center - taps) // stride  # the last position of the output
    for tap in range(taps):
        offset = tap - center
        first, last = max(0, -(offset // stride)), min(end, (length - 1 - offset) // stride)
        if first <= last:
            overlap = slice(first * stride + offset, last * stride + offset + 1, stride)
            yield tap, overlap, (first, end - last)


def _winograd_axis(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> int:
    """Return the axis along which `_winograd` is faster: 1 for time, 2 for height, 0 for none."""
    time, height, _, inputs, _ = kernel.shape
    if x.dtype != jnp.float32:
        return 0
    if time == 3 and strides[0] == 1 and x.shape[1] >= 4 and x.shape[1] % 2 == 0:
        return 1
    tall = inputs >= 128 and x.shape[2] >= 8 and x.shape[2] % 2 == 0
    return 2 if (time, height) == (1, 3) and strides[1:] == (1, 1) and tall else 0


def _winograd(x: jax.Array, kernel: jax.Array, axis: int, space: tuple[int, int]) -> jax.Array:
    """Convolve three taps of time (axis 1) or height (axis 2) by Winograd's F(2, 3).

    Two outputs take four products instead of six (Lavin and Gray, 2015, arXiv 1509.09308).
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
    """Convolve each frame; a map with fewer positions than the kernel takes one product per tap.

    XLA would swap map and kernel there, which leaves a convolution that it is slow at.
    """
    (height, width), (rows, columns) = x.shape[2:4], kernel.shape[:2]
    if rows * columns > 1 and -(-height // strides[0]) * -(-width // strides[1]) >= rows * columns:
        return _fold_frames(x, kernel, strides)
    return sum(
        jnp.pad(
            _product(x[:, :, down, across], kernel[i, j]),
            ((0, 0), (0, 0), pad_height, pad_width, (0, 0)),
        )
        for i, down, pad_height in _overlaps(rows, height, strides[0])
        for j, across, pad_width in _overlaps(columns, width, strides[1])
    )


def _conv_time(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
    """Convolve over time only, as a 2-D convolution over (time, flattened space)."""
    x = x[:, :, :: strides[1], :: strides[2]]
    y = _conv2d(x.reshape(*x.shape[:2], -1, x.shape[-1]), kernel[:, 0], (strides[0], 1))
    return y.reshape(x.shape[0], -1, *x.shape[2:4], kernel.shape[-1])


def _fold_frames(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Convolve each frame, as a 2-D convolution whose batch is all frames."""
    y = _conv2d(x.reshape(-1, *x.shape[2:]), kernel, strides)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply by a matrix as a 2-D product, whose gradient XLA computes without copies."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _conv2d(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    padding = [((k - 1) // 2,) * 2 for k in kernel.shape[:2]]
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)


def max_pool_by_axis(
    x: Float[Array, "b t h w c"],
    window: tuple[int, int, int],
    strides: tuple[int, int, int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b _ _ _ c"]:
    """Compute `flax.linen.max_pool` one axis at a time; tied maxima share the gradient."""
    for axis, (size, stride, pads) in enumerate(
        zip(window, strides, padding, strict=True), start=1
    ):
        widths = [pads if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths, constant_values=-jnp.inf)
        end = x.shape[axis] - size + 1
        shifted = (lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(size))
        x = functools.reduce(jnp.maximum, shifted)
    return x
