"""R3D: a residual network of 3-D convolutions, and the structure it shares with R(2+1)D."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import (
    ConvNorm,
    check_compute,
    materialize,
    pool_features,
    resolve_formulation,
)
from vrl_jax.types import Features

WIDTHS = (64, 128, 256, 512)
Strides = tuple[int, int, int]


@dataclass(frozen=True)
class R3D:
    """R3D as in torchvision (Tran et al., 2018, arXiv 1711.11248): R3D-18 by default.

    Attributes:
      blocks: residual blocks in each of the four stages; (1, 1, 1, 1) is the "10-layer" network.
      temporal_stride: of stages 2 to 4; 1 keeps the temporal resolution, `t' = t`, 2 divides it by
        eight.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`; "planar" is
        "native" here.
      remat: recompute the activations within blocks in the backward pass: less memory, about a
        third more operations.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    temporal_stride: int = 2
    dtype: str = "float32"
    conv: str = "auto"
    remat: bool = False

    def __post_init__(self):
        check_residual(self.blocks, self.temporal_stride)
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return WIDTHS[-1]

    def module(self) -> nn.Module:
        """Build the network."""
        formulation = resolve_formulation(self.conv, self.dtype)
        if formulation == "planar":  # 2-D shortcuts between 3-D convolutions would add transposes
            formulation = "native"
        conv = partial(ConvNorm, formulation=formulation, dtype=self.dtype)

        def block(inputs: int, features: int, strides: Strides) -> Residual:
            plain = inputs == features and strides == (1, 1, 1)
            return Residual(
                first=conv(features, (3, 3, 3), strides),
                second=conv(features, (3, 3, 3)),
                shortcut=None if plain else conv(features, (1, 1, 1), strides),
            )

        stem = conv(WIDTHS[0], (3, 7, 7), (1, 2, 2))
        return ResidualNet(stem, stack_blocks(self.blocks, self.temporal_stride, block), self.remat)


def check_residual(blocks: tuple[int, ...], temporal_stride: int) -> None:
    """Raise `ValueError` unless `blocks` and `temporal_stride` describe four stages."""
    if len(blocks) != len(WIDTHS) or min(blocks) < 1:
        raise ValueError(f"blocks must be {len(WIDTHS)} numbers of at least 1, got {blocks}")
    check.one_of((1, 2), temporal_stride=temporal_stride)


def stack_blocks(
    blocks: tuple[int, ...],
    temporal_stride: int,
    block: Callable[[int, int, Strides], "Residual"],
) -> tuple[tuple["Residual", ...], ...]:
    """Return the blocks of every stage; stages 2 to 4 start with strides (temporal_stride, 2, 2).

    Args:
      blocks: the number of blocks in each stage.
      temporal_stride: of the first block of stages 2 to 4.
      block: builds a block from its input channels, output channels and strides.
    """
    stages, inputs = [], WIDTHS[0]
    for features, count in zip(WIDTHS, blocks, strict=True):
        strides = (temporal_stride, 2, 2) if stages else (1, 1, 1)
        later = (block(features, features, (1, 1, 1)) for _ in range(count - 1))
        stages.append((block(inputs, features, strides), *later))
        inputs = features
    return tuple(stages)


class Residual(nn.Module):
    """Residual block of two convolutions.

    Attributes:
      first, second: convolutions with normalisation.
      shortcut: projection of the input to the output's shape; None for the identity.
    """

    first: nn.Module
    second: nn.Module
    shortcut: nn.Module | None

    def __call__(self, x: Float[Array, "b t h w i"], train: bool) -> Float[Array, "b _ _ _ o"]:
        """Compute relu(second(relu(first(x))) + shortcut(x))."""
        y = self.second(nn.relu(self.first(x, train)), train)
        if self.shortcut is not None:
            x = self.shortcut(x, train)
        return nn.relu(x + y)


class ResidualNet(nn.Module):
    """A stem and stages of residual blocks, without pooling between them.

    Attributes:
      stem: convolution with normalisation.
      stages: the blocks of each stage.
      remat: recompute the activations within blocks in the backward pass.
    """

    stem: nn.Module
    stages: tuple[tuple[nn.Module, ...], ...]
    remat: bool = False

    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, with batch statistics if `train`, else with running statistics."""

        def apply(block: nn.Module, x: Array) -> Array:
            return block(x, train)

        apply = nn.remat(apply) if self.remat else apply
        x = nn.relu(self.stem(clips, train))
        maps = [x]
        for stage in self.stages:
            for block in stage:
                x = materialize(apply(block, x), self.stem.formulation)
            maps.append(x)
        return pool_features(maps)
