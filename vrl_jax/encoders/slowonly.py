"""SlowOnly: a ResNet-50 without temporal stride that convolves over time in its later stages."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax.encoders.layers import ConvNorm, check_compute, materialize, max_pool, pool_features
from vrl_jax.types import Features

WIDTHS = (64, 128, 256, 512)  # of the 3 x 3 convolutions; blocks output four times as many channels
TEMPORAL = (1, 1, 3, 3)  # temporal extent of the first convolution of a block, by stage


@dataclass(frozen=True)
class SlowOnly:
    """SlowOnly-R50, the slow pathway of SlowFast (Feichtenhofer et al., 2019, arXiv 1812.03982).

    The temporal resolution is kept, `t' = t`; height and width are divided by 32.

    Attributes:
      blocks: bottlenecks in each of the four stages; (3, 4, 6, 3) is ResNet-50.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`.
      remat: recompute the activations within blocks in the backward pass: less memory, about a
        third more operations.
      two_pass: batch statistics in two passes, as PyTorch computes them; see `batch_norm`.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    dtype: str = "float32"
    conv: str = "auto"
    remat: bool = False
    two_pass: bool = False

    def __post_init__(self):
        if len(self.blocks) != len(WIDTHS) or min(self.blocks) < 1:
            raise ValueError(
                f"blocks must be {len(WIDTHS)} numbers of at least 1, got {self.blocks}"
            )
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return 4 * WIDTHS[-1]

    def module(self) -> nn.Module:
        """Build the network."""
        return SlowOnlyNet(self)


class SlowOnlyNet(nn.Module):
    """The network of a `SlowOnly`."""

    config: SlowOnly

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, with batch statistics if `train`, else with running statistics."""
        config = self.config
        norm = {"dtype": config.dtype, "two_pass": config.two_pass}
        conv = partial(ConvNorm, formulation=config.conv, **norm)
        bottleneck = nn.remat(Bottleneck, static_argnums=2) if self.config.remat else Bottleneck
        x = nn.relu(conv(WIDTHS[0], (1, 7, 7), (1, 2, 2), name="stem")(clips, train))
        x = max_pool(x, (1, 3, 3), (1, 2, 2), self.config.conv)
        maps = [x]
        for stage, (count, width) in enumerate(zip(self.config.blocks, WIDTHS, strict=True)):
            for block in range(count):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_{block}"
                x = bottleneck(conv, width, TEMPORAL[stage], stride, name=name)(x, train)
                x = materialize(x, self.config.conv)
            maps.append(x)
        return pool_features(maps)


class Bottleneck(nn.Module):
    """Bottleneck block: convolutions of t x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1 with a shortcut.

    Attributes:
      conv: builds a convolution with normalisation.
      width: channels of the first two; the third has four times as many.
      temporal: temporal extent of the first.
      stride: in height and width, of the second.
    """

    conv: partial
    width: int
    temporal: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"], train: bool) -> Float[Array, "b t _ _ o"]:
        """Compute relu(third(relu(second(relu(first(x))))) + shortcut(x))."""
        strides = (1, self.stride, self.stride)
        y = nn.relu(self.conv(self.width, (self.temporal, 1, 1), name="first")(x, train))
        y = nn.relu(self.conv(self.width, (1, 3, 3), strides, name="second")(y, train))
        y = self.conv(4 * self.width, (1, 1, 1), name="third")(y, train)
        if x.shape[-1] != y.shape[-1] or self.stride > 1:
            x = self.conv(4 * self.width, (1, 1, 1), strides, name="shortcut")(x, train)
        return nn.relu(x + y)
