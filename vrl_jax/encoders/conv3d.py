"""Convolution and pooling by what XLA has quick kernels for on CPU.

It has quick 2-D convolutions and products of matrices there, but slow 3-D convolutions, slow
gradients of pooling, and the plainest loop alone for a map smaller than the kernel.
"""

import functools
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv3d_folded(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "kt kh kw i o"],
    strides: tuple[int, int, int],
) -> Float[Array, "b _ _ _ o"]:
    """Compute `conv.conv3d_native` as a sum over the kernel's time taps of per-frame convolutions.

    Each tap convolves the frames that it meets alone, not those of the padding. A stem from few
    channels to few takes all taps in one convolution, which then has outputs enough to be quick; a
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


def max_pool_folded(
    x: Float[Array, "b t h w c"],
    window: tuple[int, int, int],
    strides: tuple[int, int, int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b _ _ _ c"]:
    """Compute `flax.linen.max_pool` axis by axis; places equally great share the gradient."""
    for axis, (size, stride, pads) in enumerate(
        zip(window, strides, padding, strict=True), start=1
    ):
        around = [pads if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, around, constant_values=-jnp.inf)
        end = x.shape[axis] - size + 1
        shifted = (lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(size))
        x = functools.reduce(jnp.maximum, shifted)
    return x
