"""A function of the user as an encoder, in JAX, or in PyTorch and NumPy on the host."""

import functools
import importlib
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
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
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
) -> Callable[[Callable[..., Layers]], Callable[..., Layers]]:
    """Return a decorator that makes a function an encoder for `init`.

    The function maps clips f32[b t h w 3] to layers by name, first to last, each f32[b tokens d]
    or f32[b t h w d]. It is compiled with what uses it, and needs no `jax.jit`, which sorts the
    entries of a dict by name: block10 would come before block2.

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
      weights: files that the function depends on besides its own module, weights above all.
        Results carry their hash, which tells apart weights that are read by the same code.
    """
    named = (weights,) if isinstance(weights, str | os.PathLike) else weights
    files = tuple(os.fspath(name) for name in named)
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
        return tuple(self.layer_shapes())

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the layers by name, without the axis of clips."""
        function = load_function(self.function)
        if not hasattr(function, "layer_shapes"):
            function.layer_shapes = _find_layer_shapes(self.function)
        return function.layer_shapes

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        *_, last = self.layer_shapes().values()
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
            shapes = self.config.layer_shapes()
            call = functools.partial(_call_for_shapes, path, shapes)
            like = [jax.ShapeDtypeStruct((len(clips), *x), jnp.float32) for x in shapes.values()]
            layers = jax.pure_callback(call, like, clips, vmap_method="sequential")
        return pool_features([_to_map(x, expected.times) for x in layers])


def load_function(path: str) -> Callable[..., Layers]:
    """Return the function of an import path "module:name".

    Raises:
      ValueError: there is no such function, or it is not decorated by `external` alone.
    """
    name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            hint = "run in the folder that holds it, or name that folder in PYTHONPATH"
            raise ValueError(f"there is no module {name}: {hint}") from error
        raise ValueError(f"{name} cannot be imported: {_describe(error, name)}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"there is no function {path}: {name} has no {attribute}")
    function = getattr(module, attribute)
    if not isinstance(getattr(function, "clip_input", None), ClipInput):
        raise ValueError(f"{path} must be decorated by vrl_jax.encoders.external.external")
    if isinstance(function, jax.stages.Wrapped):
        raise ValueError(f"{path} must not be jitted: jax.jit sorts the layers by name")
    return function


def _find_layer_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the layers by name; a function on the host runs on zeros."""
    expected = load_function(path).clip_input
    shape = (2, expected.frames, expected.size, expected.size, 3)
    if expected.host:
        layers = _call(path, np.zeros(shape, np.float32))
    else:
        layers = {}  # filled in their order, which `eval_shape` would not keep
        jax.eval_shape(
            lambda clips: layers.update(_call(path, clips)), jax.ShapeDtypeStruct(shape, "float32")
        )
    if list(layers) == sorted(layers) != sorted(layers, key=_natural_order):
        raise ValueError(
            f"layers of {path} come sorted as text, as from jax.jit: {', '.join(layers)}; drop the "
            "jit, or return an OrderedDict"
        )
    return {name: x.shape[1:] for name, x in layers.items()}


def _natural_order(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts block2 before block10."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _call_for_shapes(path: str, shapes: Mapping[str, tuple[int, ...]], clips: Any) -> list[Any]:
    """Return the layers of a function on the host in the order of `shapes`.

    Raises:
      ValueError: they have other names or shapes.
    """
    layers = _call(path, clips)
    of_batch = {name: x.shape[1:] for name, x in layers.items()}
    if of_batch != dict(shapes):
        raise ValueError(f"layers of {path} depend on the batch: {of_batch}, on two clips {shapes}")
    return [layers[name] for name in shapes]


def _call(path: str, clips: Any) -> dict[str, Any]:
    """Return the layers of a function by name, as NumPy arrays if it runs on the host.

    Raises:
      ValueError: the function fails, or its layers have another form than `external` says.
    """
    function = load_function(path)
    expected = function.clip_input
    try:
        layers = function(np.array(clips) if expected.host else clips)
    except Exception as error:
        shape, text = " ".join(map(str, clips.shape)), _describe(error, path.partition(":")[0])
        hint = "" if expected.host else "; PyTorch and NumPy need host=True in its decorator"
        raise ValueError(f"{path} failed on clips f32[{shape}]: {text}{hint}") from error
    named = isinstance(layers, Mapping) and all(isinstance(n, str) and n for n in layers)
    if not named or not layers:
        got = type(layers).__name__
        raise ValueError(f"{path} must return layers by name, {{'block1': array, ...}}, got {got}")
    return {
        name: _check_layer(f"layer {name!r} of {path}", layer, len(clips), expected)
        for name, layer in layers.items()
    }


def _check_layer(title: str, layer: Any, count: int, expected: ClipInput) -> Any:
    """Return a layer of `count` clips, as a NumPy array if the function runs on the host.

    Raises:
      ValueError: it has another form than `external` says.
    """
    try:
        x = np.asarray(layer) if expected.host else jnp.asarray(layer)
        x = x.astype(np.float32) if expected.host and not np.iscomplexobj(x) else x
    except (RuntimeError, TypeError, ValueError) as error:  # such as a tensor with a gradient
        raise ValueError(
            f"{title} is no array of numbers, return float32 on the CPU without gradient: {error}"
        ) from error
    tokens = x.ndim == 3 and x.shape[1] % expected.times == 0
    if x.shape[:1] != (count,) or 0 in x.shape or not (tokens or x.ndim == 5):
        got = " x ".join(map(str, x.shape)) or "a single number"
        raise ValueError(
            f"{title} must be b x tokens x d with tokens a multiple of times={expected.times}, or "
            f"b x t x h x w x d, with b={count}, got {got}"
        )
    if np.iscomplexobj(x):
        raise ValueError(f"{title} must be real, got {x.dtype}")
    if x.ndim == 5 and x.shape[1] > expected.frames:
        raise ValueError(
            f"{title} has {x.shape[1]} positions in time for {expected.frames} frames: its axes "
            "must be b t h w d, with the channels last"
        )
    return x


def _describe(error: Exception, module: str) -> str:
    """Return an error in one line, with the last line of a module that it passed through."""
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == module:
            return f"line {number}: {text}"
    return text


def _to_map(x: Array, times: int) -> Float[Array, "b t h w d"]:
    return x if x.ndim == 5 else x.reshape(len(x), times, -1, 1, x.shape[-1])
