"""C3D: eight plain space-time convolutions with pooling between them."""

from dataclasses import dataclass

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import Conv3d, batch_norm, check_compute, max_pool, pool_features
from vrl_jax.types import Features

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # of the convolutions of each stage


@dataclass(frozen=True)
class C3D:
    """The convolutional part of C3D (Tran et al., 2015, arXiv 1412.0767), batch-normalised.

    So self-supervised learning has it since clip order prediction (Xu et al., 2019): each
    convolution keeps its bias and is followed by batch normalisation, 27.66 million parameters;
    pool5 and the dense layers are replaced by the mean. A stage ends with its pooling, but the
    last. Where a map has an odd side its last row is pooled by itself, as in the original.

    Attributes:
      temporal_stride: of the pooling after stages 2 to 4; 1 keeps every frame, so that `t' = t`, 2
        leaves one eighth of them.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      conv: how to convolve, see `vrl_jax.encoders.layers.Conv3d`.
    """

    temporal_stride: int = 2
    dtype: str = "float32"
    conv: str = "auto"

    def __post_init__(self):
        check.one_of((1, 2), temporal_stride=self.temporal_stride)
        check_compute(self.dtype, self.conv)

    @property
    def dim(self) -> int:
        """The width of `Features.clip`."""
        return WIDTHS[-1][-1]

    def module(self) -> nn.Module:
        """Build the network."""
        return C3DNet(self)


class C3DNet(nn.Module):
    """The network of a `C3D`."""

    config: C3D

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`, normalising by the batch's statistics if `train`, else the running."""
        config = self.config
        how = {"bias": True, "formulation": config.conv, "dtype": config.dtype}
        x, maps = clips, []
        for stage, widths in enumerate(WIDTHS, start=1):
            for width, letter in zip(widths, "ab", strict=False):
                name = f"conv{stage}{letter}"
                x = Conv3d(width, (3, 3, 3), **how, name=name)(x)
                x = nn.relu(batch_norm(train, config.dtype, f"{name}_norm")(x))
            if stage < len(WIDTHS):
                window = (1 if stage == 1 else config.temporal_stride, 2, 2)
                around = lax.padtype_to_pads(x.shape[1:4], window, window, "SAME")
                x = max_pool(x, window, window, config.conv, around)
            maps.append(x)
        return pool_features(maps)
