"""4DS: transformers of up to billions of parameters, pretrained by masked autoencoding."""

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.attention import (
    Transformer,
    check_clip,
    drop_rates,
    learned_positions,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class FourDS(Transformer):
    """The encoder of 4DS (2412.15212): ViT-B by default.

    Joint space-time attention with all biases, without a class token. Learned positions have the
    size of the pretraining clips; other clips are refused. `Features.stages` are the token maps
    after every block. No normalisation follows the last block. The released code of B reads
    stages 9 and 10.

    | | width | depth | heads | hidden |
    |---|---|---|---|---|
    | B | 768 | 12 | 12 | |
    | e | 1792 | 56 | 16 | 15360 |

    Attributes:
      frames: frames in a clip.
      size: height and width of a clip.
    """

    frames: int = 16
    size: int = 224

    def __post_init__(self):
        super().__post_init__()
        check.at_least(1, frames=self.frames, size=self.size)

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return FourDSNet(self, drop_path)


class FourDSNet(nn.Module):
    """The network of a `FourDS`."""

    config: FourDS
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths.

        Raises:
          ValueError: the clips have another size than the learned positions.
        """
        config = self.config
        check_clip(clips.shape, config.frames, config.size)
        x = config.embed(clips)
        grid = x.shape
        x, maps = x.reshape(x.shape[0], -1, config.width), []
        x = x + learned_positions(x.shape[1], config.width, config.dtype, "positions")
        rates = drop_rates(self.drop_path * train, config.depth)
        for name, drop in zip(config.blocks(), rates, strict=True):
            x = config.block(name, drop, key_bias=True, tanh_gelu=True)(x)
            maps.append(x.reshape(grid))
        return pool_features(maps)
