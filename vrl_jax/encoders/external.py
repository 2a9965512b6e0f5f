"""A function of the user as an encoder, in JAX, or in PyTorch and NumPy on the host."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features

Layers = Mapping[str, Any]


@dataclass(frozen=True)
class ClipInput:
    """The clips that a function expects; see `external`."""

    size: int
    frames: int
    stride: int
    fps: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    times: int
    host: bool

    def __post_init__(self):
        check.at_least(1, size=self.size, frames=self.frames, stride=self.stride, times=self.times)
        check.at_least(0, fps=self.fps)
        check.positive(least_std=min(self.std))


def external(
    *,
    size: int,
    frames: int,
    stride: int = 1,
    fps: float = 0.0,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    times: int = 1,
    host: bool = False,
) -> Callable[[Callable[..., Layers]], Callable[..., Layers]]:
    """Return a decorator that makes a function an encoder for `init`.

    The function maps clips f32[b t h w 3] to layers by name, first to last, each f32[b tokens d]
    or f32[b t h w d].

    Args:
      size: height and width of the clips.
      frames: frames in a clip.
      stride: from frame to frame.
      fps: rate at which the stride counts; 0 is the video's own.
      mean: per-channel mean that is subtracted from values in [0, 1].
      std: per-channel standard deviation to divide by.
      times: positions in time of the tokens, which are ordered by time first; must divide them.
      host: whether the function takes and returns NumPy arrays (or tensors on the CPU), outside
        the compiled program, instead of being traced by JAX.
    """
    clip_input = ClipInput(size, frames, stride, fps, tuple(mean), tuple(std), times, host)

    def decorate(function: Callable[..., Layers]) -> Callable[..., Layers]:
        function.clip_input = clip_input
        return function

    return decorate


@dataclass(frozen=True)
class External:
    """A function of the user as an encoder; it has no parameters that training could change.

    `Features.stages` are its layers.

    Attributes:
      function: its import path, "module:name".
    """

    function: str

    @property
    def input(self) -> ClipInput:
        """The clips that the function expects.

        Raises:
          ValueError: there is no such function, or it is not decorated by `external`.
        """
        return load_function(self.function).clip_input

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        shape = (1, self.input.frames, self.input.size, self.input.size, 3)
        clips = jax.ShapeDtypeStruct(shape, jnp.float32)
        apply = functools.partial(self.module().apply, {}, train=False)
        return jax.eval_shape(apply, clips).clip.shape[-1]

    def module(self) -> nn.Module:
        """Build the network."""
        return ExternalNet(self)


class ExternalNet(nn.Module):
    """The network of an `External`."""

    config: External

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` has no effect.

        Raises:
          ValueError: layers have another form than `external` says.
        """
        name, function = self.config.function, load_function(self.config.function)
        call = _call_on_host if function.clip_input.host else _call
        layers = call(function, clips)
        return pool_features([_to_map(name, x, function.clip_input.times) for x in layers])


def load_function(path: str) -> Callable[..., Layers]:
    """Return the function of an import path "module:name".

    Raises:
      ValueError: there is no such function, or it is not decorated by `external`.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no function {path}: {error}") from error
    if not isinstance(getattr(function, "clip_input", None), ClipInput):
        raise ValueError(f"{path} must be decorated by vrl_jax.encoders.external.external")
    return function


def _call(function: Callable[..., Layers], clips: Array) -> tuple[Array, ...]:
    return tuple(function(clips).values())


def _call_on_host(function: Callable[..., Layers], clips: Array) -> tuple[Array, ...]:
    """Call a function outside the compiled program; it is run on zeros for the shapes."""

    def call(clips: Any) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(x, np.float32) for x in function(np.array(clips)).values())

    shapes = _host_shapes(function, clips.shape[1:])
    shapes = tuple(jax.ShapeDtypeStruct((len(clips), *shape), jnp.float32) for shape in shapes)
    return jax.pure_callback(call, shapes, clips, vmap_method="sequential")


@functools.cache
def _host_shapes(function: Callable[..., Layers], shape: tuple[int, ...]) -> tuple[Any, ...]:
    layers = function(np.zeros((1, *shape), np.float32))
    return tuple(tuple(x.shape[1:]) for x in layers.values())


def _to_map(name: str, x: Array, times: int) -> Float[Array, "b t h w d"]:
    if x.ndim == 5:
        return x
    if x.ndim != 3 or x.shape[1] % times:
        raise ValueError(
            f"layers of {name} must be b x tokens x d with tokens a multiple of times={times}, or "
            f"b x t x h x w x d, got {' x '.join(map(str, x.shape))}"
        )
    return x.reshape(len(x), times, -1, 1, x.shape[-1])
