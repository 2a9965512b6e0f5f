"""Kinds of layers, and how Flax and PyTorch name and transpose the arrays of each."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from vrl_jax.encoders.attention import TubeletEmbedding
from vrl_jax.encoders.layers import Conv3d


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer, as Flax and PyTorch store it.

    Attributes:
      names: PyTorch's name of each array, by Flax's.
      axes: the permutation of Flax's axes that gives PyTorch's, as in `numpy.transpose`, by Flax's
        name; only of arrays whose axes differ.
    """

    names: Mapping[str, str]
    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def axes_of(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the permutation of Flax's axes of an array that gives PyTorch's.

        Raises:
          ValueError: this kind has no such array, or one with another number of axes.
        """
        if name not in self.names:
            raise ValueError(f"arrays must be among {', '.join(self.names)}, got {name}")
        axes = self.axes.get(name, tuple(range(ndim)))
        if len(axes) != ndim:
            raise ValueError(f"{name} must have {len(axes)} axes, got {ndim}")
        return axes


_WEIGHT_AND_BIAS = {"kernel": "weight", "bias": "bias"}
_AFFINE = {"scale": "weight", "bias": "bias"}

CONVOLUTION_3D = LayerKind(
    _WEIGHT_AND_BIAS, {"kernel": (4, 3, 0, 1, 2)}
)  # (t h w i o), (o i t h w)
DENSE = LayerKind(_WEIGHT_AND_BIAS, {"kernel": (1, 0)})  # (i o), (o i)
BATCH_NORM = LayerKind({**_AFFINE, "mean": "running_mean", "var": "running_var"})
LAYER_NORM = LayerKind(_AFFINE)
EMBEDDING = LayerKind({"embedding": "weight"})  # (n d) in both

KINDS: dict[type[nn.Module], LayerKind] = {
    Conv3d: CONVOLUTION_3D,
    TubeletEmbedding: CONVOLUTION_3D,
    nn.Dense: DENSE,
    nn.BatchNorm: BATCH_NORM,
    nn.LayerNorm: LAYER_NORM,
    nn.Embed: EMBEDDING,
}


@contextlib.contextmanager
def record_kinds() -> Iterator[dict[str, LayerKind]]:
    """Record the kind of every layer that is called in the block, by its path in the network.

    The kind follows from the class of a layer, not from shapes: a square dense kernel and an
    embedding table have the same shape.
    """
    kinds = {}

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        for layer_class, kind in KINDS.items():
            if isinstance(layer, layer_class):
                kinds["/".join(layer.path)] = kind
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        yield kinds
