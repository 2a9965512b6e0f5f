"""A function of the user as an encoder, in JAX, or in PyTorch and NumPy on the host."""

import functools
import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    weights: tuple[str, ...]

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
    weights: str | Sequence[str] = (),
) -> Callable[[Callable[..., Layers]], Callable[..., Layers]]:
    """Return a decorator that makes a function an encoder for `init`.

    The function maps clips f32[b t h w 3] to layers by name, first to last, each f32[b tokens d]
    or f32[b t h w d]. It is compiled with what uses it, and must not be jitted itself: `jax.jit`
    sorts the layers by name.

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
      weights: files of weights that the function reads. Results carry their hash, which tells apart
        two sets of weights that are read by the same code.
    """
    files = (weights,) if isinstance(weights, str) else tuple(weights)
    clip_input = ClipInput(size, frames, stride, fps, tuple(mean), tuple(std), times, host, files)

    def decorate(function: Callable[..., Layers]) -> Callable[..., Layers]:
        function.clip_input = clip_input
        return function

    return decorate


@dataclass(frozen=True)
class External:
    """A function of the user as an encoder; it has no parameters that training could change.

    `Features.stages` are its layers, whose names are those of `list_layers`.

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

    def list_layers(self) -> tuple[str, ...]:
        """Return the names of `Features.stages`.

        Raises:
          ValueError: the function fails, or its layers have another form than `external` says.
        """
        return tuple(_layer_shapes(self.function, load_function(self.function)))

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        *_, last = _layer_shapes(self.function, load_function(self.function)).values()
        return last[-1]

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
          ValueError: the function expects other clips, fails, or returns layers of another form
            than `external` says.
        """
        path, expected = self.config.function, self.config.input
        side = expected.size
        if clips.shape[1:4] != (expected.frames, side, side):
            got = " x ".join(map(str, clips.shape[1:4]))
            raise ValueError(
                f"{path} expects clips of {expected.frames} x {side} x {side}, by its decorator, "
                f"got {got}: change the clips, or frames and size of the decorator"
            )
        if not expected.host:
            layers = list(_call(path, clips).values())
        else:
            shapes = [
                jax.ShapeDtypeStruct((len(clips), *shape), jnp.float32)
                for shape in _layer_shapes(path, load_function(path)).values()
            ]
            call = lambda clips: list(_call(path, clips).values())  # noqa: E731
            layers = jax.pure_callback(call, shapes, clips, vmap_method="sequential")
        return pool_features([_to_map(x, expected.times) for x in layers])


def load_function(path: str) -> Callable[..., Layers]:
    """Return the function of an import path "module:name".

    Raises:
      ValueError: there is no such function, or it is not decorated by `external` alone.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no function {path}: {error}") from error
    except Exception as error:
        raise ValueError(f"{module} cannot be imported: {_describe(error, module)}") from error
    if not isinstance(getattr(function, "clip_input", None), ClipInput):
        raise ValueError(f"{path} must be decorated by vrl_jax.encoders.external.external")
    if isinstance(function, jax.stages.Wrapped):
        raise ValueError(f"{path} must not be jitted: jax.jit sorts the layers by name")
    return function


@functools.cache
def _layer_shapes(path: str, function: Callable[..., Layers]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the layers of one clip by name; a function on the host runs on zeros."""
    expected = function.clip_input
    shape = (1, expected.frames, expected.size, expected.size, 3)
    if expected.host:
        layers = _call(path, np.zeros(shape, np.float32))
    else:
        layers = {}  # filled in their order, which `eval_shape` would not keep
        jax.eval_shape(
            lambda clips: layers.update(_call(path, clips)), jax.ShapeDtypeStruct(shape, "float32")
        )
    return {name: x.shape[1:] for name, x in layers.items()}


def _call(path: str, clips: Any) -> dict[str, Any]:
    """Return the layers of a function by name, as NumPy arrays if it runs on the host.

    Raises:
      ValueError: the function fails, or its layers have another form than `external` says.
    """
    function = load_function(path)
    host, times = function.clip_input.host, function.clip_input.times
    frames = function.clip_input.frames
    with _named_errors(path, clips.shape, host):
        layers = function(np.array(clips) if host else clips)
    named = isinstance(layers, Mapping) and all(isinstance(n, str) and n for n in layers)
    if not named or not layers:
        got = type(layers).__name__
        raise ValueError(f"{path} must return layers by name, {{'block1': array, ...}}, got {got}")
    arrays = {}
    for name, layer in layers.items():
        try:
            x = np.asarray(layer, np.float32) if host else layer
        except (RuntimeError, TypeError, ValueError) as error:  # such as a tensor with a gradient
            raise ValueError(
                f"layer {name!r} of {path} is no NumPy array, return float32 on the CPU without "
                f"gradient: {error}"
            ) from error
        tokens = x.ndim == 3 and x.shape[1] % times == 0
        if len(x) != len(clips) or not (tokens or x.ndim == 5):
            got = " x ".join(map(str, x.shape))
            raise ValueError(
                f"layer {name!r} of {path} must be b x tokens x d with tokens a multiple of "
                f"times={times}, or b x t x h x w x d, with b={len(clips)}, got {got}"
            )
        if x.ndim == 5 and x.shape[1] > frames:
            raise ValueError(
                f"layer {name!r} of {path} has {x.shape[1]} positions in time for {frames} frames: "
                "its axes must be b t h w d, with the channels last"
            )
        arrays[str(name)] = x
    return arrays


@contextmanager
def _named_errors(path: str, shape: tuple[int, ...], host: bool) -> Iterator[None]:
    """Convert an error of a function to a `ValueError` of one line that names where it arose."""
    try:
        yield
    except Exception as error:
        clips, text = " ".join(map(str, shape)), _describe(error, path.partition(":")[0])
        hint = "" if host else "; PyTorch and NumPy need host=True in its decorator"
        raise ValueError(f"{path} failed on clips f32[{clips}]: {text}{hint}") from error


def _describe(error: Exception, module: str) -> str:
    """Return an error in one line, with the last line of a module that it passed through."""
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == module:
            return f"line {number}: {text}"
    return text


def _to_map(x: Array, times: int) -> Float[Array, "b t h w d"]:
    return x if x.ndim == 5 else x.reshape(len(x), times, -1, 1, x.shape[-1])
