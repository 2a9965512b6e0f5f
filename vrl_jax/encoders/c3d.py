"""C3D: eight space-time convolutions interleaved with max pooling."""

from dataclasses import dataclass

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import Conv3d, batch_norm, check_compute, max_pool, pool_features
from vrl_jax.types import Features

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # output channels, by stage


@dataclass(frozen=True)
class C3D:
    """The convolutional part of C3D (Tran et al., 2015, arXiv 1412.0767), batch-normalised.

    This is the variant of self-supervised learning since clip order prediction (Xu et al., 2019):
    convolutions have a bias and batch normalisation, 27.66 million parameters; global average
    pooling replaces pool5 and the fully connected layers. Every stage but the last ends with max
    pooling. The last row of a map with an odd side is pooled separately, as in the original.

    Attributes:
      temporal_stride: of the pooling after stages 2 to 4; 1 keeps the temporal resolution,
        `t' = t`, 2 divides it by eight.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: formulation of the convolutions, see `vrl_jax.encoders.layers.Conv3d`.
    """

    temporal_stride: int = 2
    dtype: str = "float32"
    conv: str = "auto"

    def __post_init__(self):
        check.one_of((1, 2), temporal_stride=self.temporal_stride)
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return WIDTHS[-1][-1]

    def module(self) -> nn.Module:
        """Build the network."""
        return C3DNet(self)


class C3DNet(nn.Module):
    """The network of a `C3D`."""

    config: C3D

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, with batch statistics if `train`, else with running statistics."""
        config = self.config
        options = {"bias": True, "formulation": config.conv, "dtype": config.dtype}
        x, maps = clips, []
        for stage, widths in enumerate(WIDTHS, start=1):
            for width, letter in zip(widths, "ab", strict=False):
                name = f"conv{stage}{letter}"
                x = Conv3d(width, (3, 3, 3), **options, name=name)(x)
                x = nn.relu(batch_norm(train, config.dtype, f"{name}_norm")(x))
            if stage < len(WIDTHS):
                window = (1 if stage == 1 else config.temporal_stride, 2, 2)
                padding = lax.padtype_to_pads(x.shape[1:4], window, window, "SAME")
                x = max_pool(x, window, window, config.conv, padding)
            maps.append(x)
        return pool_features(maps)
