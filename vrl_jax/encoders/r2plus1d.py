"""R(2+1)D: a residual network whose 3-D convolutions are factorised into space and time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn

from vrl_jax import check
from vrl_jax.encoders.layers import ConvNorm, check_compute
from vrl_jax.encoders.r3d import (
    WIDTHS,
    Residual,
    ResidualNet,
    Strides,
    check_residual,
    stack_blocks,
)


@dataclass(frozen=True)
class R2plus1D:
    """R(2+1)D (Tran et al., 2018, arXiv 1711.11248): torchvision's R(2+1)D-18 by default.

    Two networks have this name. They differ in the width between the spatial and the temporal
    convolution. "torchvision": 45 in the stem, one width for both convolutions of a block,
    shortcuts not factorised. "vcop" (clip order prediction, Xu et al., 2019): 83 in the stem, a
    width for each convolution from its own inputs and outputs, shortcuts factorised as well.

    Attributes:
      blocks: residual blocks in each of the four stages; (1, 1, 1, 1) is the "10-layer" network.
      variant: "torchvision" or "vcop".
      temporal_stride: of stages 2 to 4; 1 keeps the temporal resolution, `t' = t`, 2 divides it by
        eight.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`.
      remat: recompute the activations within blocks in the backward pass: less memory, about a
        third more operations.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    variant: str = "torchvision"
    temporal_stride: int = 2
    dtype: str = "float32"
    conv: str = "auto"
    remat: bool = False

    def __post_init__(self):
        check.one_of(("torchvision", "vcop"), variant=self.variant)
        check_residual(self.blocks, self.temporal_stride)
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return WIDTHS[-1]

    def module(self) -> nn.Module:
        """Build the network."""
        conv = partial(ConvNorm, formulation=self.conv, dtype=self.dtype)
        vcop = self.variant == "vcop"
        stem_mid = middle_width(3, WIDTHS[0], (3, 7, 7)) if vcop else 45
        stem = conv(WIDTHS[0], (3, 7, 7), (1, 2, 2), mid=stem_mid)
        block = partial(_block, conv, vcop)
        return ResidualNet(stem, stack_blocks(self.blocks, self.temporal_stride, block), self.remat)


def middle_width(inputs: int, outputs: int, kernel: tuple[int, int, int]) -> int:
    """Return the width at which a (2+1)D convolution has as many weights as the 3-D one.

    It is floor(kt kh kw i o / (kh kw i + kt o)), Tran et al., 2018, section 3.5.
    """
    kt, kh, kw = kernel
    return kt * kh * kw * inputs * outputs // (kh * kw * inputs + kt * outputs)


def _block(
    conv: Callable[..., ConvNorm], vcop: bool, inputs: int, features: int, strides: Strides
) -> Residual:
    cube, point = (3, 3, 3), (1, 1, 1)
    mid = middle_width(inputs, features, cube)
    second_mid = middle_width(features, features, cube) if vcop else mid
    shortcut_mid = middle_width(inputs, features, point) if vcop else 0
    plain = inputs == features and strides == (1, 1, 1)
    return Residual(
        first=conv(features, cube, strides, mid=mid),
        second=conv(features, cube, mid=second_mid),
        shortcut=None if plain else conv(features, point, strides, mid=shortcut_mid),
    )
