"""The encoder with its projection heads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.types import Features

Tree = Any
Arrays = Mapping[str, jax.Array]


@runtime_checkable
class EncoderConfig(Protocol):
    """The component under `encoder` in a config.

    A method `list_layers() -> tuple[str, ...]`, names of `Features.stages`, is optional.
    """

    @property
    def dim(self) -> int:
        """The width of `Features.clip`."""
        ...

    def module(self) -> nn.Module:
        """Return the network: (clips f32[b t h w 3], train) -> Features."""
        ...


class Outputs(NamedTuple):
    """A network's outputs for views: every array begins with the axes b, v.

    Attributes:
      features: the encoder's; None where losses read them, see `KeepFn`.
      projected: every head's output, by name.
      diagnostics: f32[b v] by name, whose mean is logged.
    """

    features: Features | None
    projected: Arrays
    diagnostics: Arrays


class Network(nn.Module):
    """The encoder with its projection heads.

    Attributes:
      encoder: the network that is kept.
      heads: projection heads by name.
      predictors: predictors on heads of the learning side, by name; empty in most frameworks.
      read: maps features, whose arrays begin with the axes b, v, to the heads' inputs by name, and
        diagnostics to log.
    """

    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    predictors: Mapping[str, nn.Module]
    read: Callable[[Features], tuple[Arrays, Arrays]]

    def __call__(
        self, clips: Float[Array, "b v t h w 3"], train: bool, predict: bool = True
    ) -> Outputs:
        """Return the features, the heads' outputs and the diagnostics."""
        features = split_views(
            self.encode(clips.reshape(-1, *clips.shape[2:]), train), clips.shape[1]
        )
        inputs, diagnostics = self.read(features)
        projected = {name: head(inputs[name], train) for name, head in self.heads.items()}
        if predict:
            predicted = {name: p(projected[name], train) for name, p in self.predictors.items()}
            projected = {**projected, **predicted}
        return Outputs(features, projected, diagnostics)

    def encode(self, clips: Float[Array, "n t h w 3"], train: bool = False) -> Features:
        """Return the encoder's features, by default with fixed statistics."""
        return self.encoder(clips, train)


def attach_heads(
    encoder: EncoderConfig,
    framework: FrameworkConfig | None,
    heads: Mapping[str, int],
    read: Callable[[Features], tuple[Arrays, Arrays]],
) -> Network:
    """Return the encoder with a framework's projection heads and predictors.

    Args:
      encoder: the network that is kept.
      framework: shapes the heads.
      heads: output width of each projection head, by name.
      read: maps the encoder's features to the heads' inputs f32[b v ... c], and diagnostics to log.

    Raises:
      ValueError: there is no framework.
    """
    if framework is None:
        raise ValueError(
            "this method compares embeddings with a framework: framework must be SimCLR, MoCo, "
            "BYOL or SwAV, got None"
        )
    predictors = {name: framework.predictor(dim) for name, dim in heads.items()}
    return Network(
        encoder.module(),
        {name: framework.head(dim) for name, dim in heads.items()},
        {name: predictor for name, predictor in predictors.items() if predictor is not None},
        read,
    )


def split_views(tree: Tree, views: int) -> Tree:
    """Split the axis of videos and views: [b*v ...] -> [b v ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, views, *x.shape[1:]), tree)
