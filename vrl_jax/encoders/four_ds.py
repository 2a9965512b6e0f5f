"""4DS: transformers of up to billions of parameters, pretrained by masked autoencoding."""

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax.encoders.attention import (
    FixedSizeTransformer,
    drop_rates,
    learned_positions,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class FourDS(FixedSizeTransformer):
    """The encoder of 4DS (2412.15212): ViT-B by default.

    Joint space-time attention with all biases, without a class token. Learned positions have the
    size of the pretraining clips; other clips are refused. `Features.stages` are the token maps
    after every block. No normalisation follows the last block. The released code of B reads
    stages 9 and 10.

    | | width | depth | heads | hidden |
    |---|---|---|---|---|
    | B | 768 | 12 | 12 | |
    | e | 1792 | 56 | 16 | 15360 |
    """

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
        x = config.embed(clips)
        grid = x.shape
        x = x.reshape(x.shape[0], -1, config.width)
        x = x + learned_positions(x.shape[1], config.width, config.dtype, "positions")
        rates = drop_rates(self.drop_path * train, config.depth)
        outputs = config.apply_blocks(x, rates, key_bias=True, tanh_gelu=True)
        return pool_features([x.reshape(grid) for x in outputs])
