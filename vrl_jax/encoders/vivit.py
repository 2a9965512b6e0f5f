"""ViViT: joint space-time attention with a class token."""

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax.encoders.attention import (
    FixedSizeTransformer,
    drop_rates,
    layer_norm,
    learned_positions,
    prepend_class,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class ViViT(FixedSizeTransformer):
    """ViViT (2103.15691) with "spatio-temporal attention", its model 1: ViViT-B/16x2 by default.

    A class token attends with the tubelets. Learned positions have the size of the pretraining
    clips; other clips are refused. `Features.stages` are the token maps after every block, without
    the class token; the last is normalised. As for every encoder, the clip vector is the mean of
    the tokens.
    """

    frames: int = 32

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return ViViTNet(self, drop_path)


class ViViTNet(nn.Module):
    """The network of a `ViViT`."""

    config: ViViT
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
        x = prepend_class(x.reshape(x.shape[0], -1, config.width), config.dtype)
        x = x + learned_positions(x.shape[1], config.width, config.dtype, "positions")
        rates = drop_rates(self.drop_path * train, config.depth)
        outputs = config.apply_blocks(x, rates, key_bias=True, tanh_gelu=True)
        maps = [x[:, 1:].reshape(grid) for x in outputs]
        maps[-1] = layer_norm(config.dtype, 1e-6, "norm")(maps[-1])
        return pool_features(maps)
