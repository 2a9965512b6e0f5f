"""Tiny: a network without temporal stride, small enough to pre-train on a laptop."""

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax.encoders.layers import ConvNorm, check_compute, pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class Tiny:
    """A network without shortcuts: `t' = t`, one eighth of height and width by default.

    The stem is a 3-D convolution, so that it can detect the direction of motion; the stages are
    (2+1)D convolutions.

    The stem's output dominates the cost, so the default stem has a stride of four: forward and
    backward pass take a third of the time of strides (2, 2, 2).

    Attributes:
      widths: channels of the stem and of each stage.
      strides: in height and width, of the stem and of each stage.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    strides: tuple[int, ...] = (4, 2, 1)
    dtype: str = "float32"
    conv: str = "auto"

    def __post_init__(self):
        if min(self.widths, default=0) < 1:
            raise ValueError(f"widths must be numbers of at least 1, got {self.widths}")
        if len(self.strides) != len(self.widths) or min(self.strides) < 1:
            raise ValueError(
                f"strides must be {len(self.widths)} numbers of at least 1, one for each width, "
                f"got {self.strides}"
            )
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return self.widths[-1]

    def module(self) -> nn.Module:
        """Build the network."""
        return TinyNet(self)


class TinyNet(nn.Module):
    """The network of a `Tiny`."""

    config: Tiny

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, with batch statistics if `train`, else with running statistics."""
        config = self.config
        x, maps = clips, []
        for i, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
            conv = ConvNorm(
                features=width,
                mid=width if i else 0,
                kernel=(3, 3, 3) if i else (3, 5, 5),
                strides=(1, stride, stride),
                formulation=config.conv,
                dtype=config.dtype,
                name=f"stage{i}" if i else "stem",
            )
            x = nn.relu(conv(x, train))
            maps.append(x)
        return pool_features(maps)
