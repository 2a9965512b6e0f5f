"""S3D and S3D-G: Inception networks whose 3-D convolutions are factorised into space and time."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import ConvNorm, check_compute, max_pool, pool_features
from vrl_jax.types import Features

Triple = tuple[int, int, int]
Widths = tuple[int, int, int, int, int, int]

# Widths of the blocks of stages 3 to 5: first branch; reduction and output of the second, of the
# third; fourth
STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


@dataclass(frozen=True)
class S3D:
    """S3D or S3D-G without its head (Xie et al., 2018, arXiv 1712.04851), as in torchvision.

    The last map has one eighth of the frames and one thirty-second of height and width.
    `Features.stages` are the maps after the stem, the second convolution and the blocks 3c, 4f and
    5c, before the pooling that follows.

    Attributes:
      gated: whether every branch of a block ends with a `Gate`, as in S3D-G. A gate averages over
        the clip, so that the features of a frame depend on all frames.
      temporal_stride: of the stem and of the pooling before blocks 4b and 5b; 1 keeps the temporal
        resolution, `t' = t`, 2 divides it by eight.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`.
    """

    gated: bool = False
    temporal_stride: int = 2
    dtype: str = "float32"
    conv: str = "auto"

    def __post_init__(self):
        check.one_of((1, 2), temporal_stride=self.temporal_stride)
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        first, _, second, _, third, fourth = STAGES[-1][-1]
        return first + second + third + fourth

    def module(self) -> nn.Module:
        """Build the network."""
        return S3DNet(self)


class S3DNet(nn.Module):
    """The network of an `S3D`."""

    config: S3D

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, with batch statistics if `train`, else with running statistics."""
        config, step = self.config, self.config.temporal_stride
        options = {"formulation": config.conv, "dtype": config.dtype}
        conv = partial(ConvNorm, decay=0.999, epsilon=1e-3, **options)
        x = nn.relu(conv(64, (7, 7, 7), (step, 2, 2), mid=64, name="conv1")(clips, train))
        maps = [x]
        x = max_pool(x, (1, 3, 3), (1, 2, 2), config.conv)
        x = nn.relu(conv(64, (1, 1, 1), name="conv2_reduce")(x, train))
        x = nn.relu(conv(192, (3, 3, 3), mid=192, name="conv2")(x, train))
        maps.append(x)
        windows = ((1, 3, 3), (3, 3, 3), (step, 2, 2))
        strides = ((1, 2, 2), (step, 2, 2), (step, 2, 2))
        for stage, blocks in enumerate(STAGES):
            x = max_pool(x, windows[stage], strides[stage], config.conv)
            for letter, widths in zip("bcdef", blocks, strict=False):
                name = f"block{stage + 3}{letter}"
                x = Inception(conv, widths, config.gated, **options, name=name)(x, train)
            maps.append(x)
        return pool_features(maps)


class Inception(nn.Module):
    """Inception block of four branches, whose outputs are concatenated.

    The branches are a 1 x 1 x 1 convolution; 1 x 1 x 1 then 3 x 3 x 3, twice; and 3 x 3 x 3 max
    pooling then 1 x 1 x 1.

    Attributes:
      conv: builds a convolution with normalisation.
      widths: of the first branch; of both convolutions of the second and of the third; of the
        fourth.
      gated: whether every branch ends with a `Gate`.
      formulation: of the pooling, as in `Conv3d`.
      dtype: of the computation of gates.
    """

    conv: partial
    widths: Widths
    gated: bool
    formulation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"], train: bool) -> Float[Array, "b t h w o"]:
        """Concatenate the outputs of the branches, in order."""

        def point(x, width, name):
            return nn.relu(self.conv(width, (1, 1, 1), name=name)(x, train))

        def cube(x, width, name):
            return nn.relu(self.conv(width, (3, 3, 3), mid=width, name=name)(x, train))

        first, second_mid, second, third_mid, third, fourth = self.widths
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1), self.formulation)
        branches = {
            "first": point(x, first, "first"),
            "second": cube(point(x, second_mid, "second_reduce"), second, "second"),
            "third": cube(point(x, third_mid, "third_reduce"), third, "third"),
            "fourth": point(pooled, fourth, "fourth"),
        }
        if self.gated:
            branches = {
                name: Gate(self.dtype, name=f"{name}_gate")(y) for name, y in branches.items()
            }
        return jnp.concatenate(list(branches.values()), axis=-1)


class Gate(nn.Module):
    """Self-gating (Xie et al., 2018): channel weights from the global average of the clip."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        """Return x sigmoid(W mean(x) + b), with the mean over time and space in float32."""
        mean = x.mean((1, 2, 3), keepdims=True, dtype=jnp.float32)
        return x * nn.sigmoid(nn.Dense(x.shape[-1], dtype=self.dtype, name="dense")(mean))
