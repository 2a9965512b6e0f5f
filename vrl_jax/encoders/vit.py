"""ViT: a video transformer with joint attention over the space-time tubelets of a clip."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax.encoders.attention import Transformer, drop_rates, layer_norm
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features

STAGES = 4


@dataclass(frozen=True)
class ViT(Transformer):
    """A video transformer with joint space-time attention: ViT-B by default.

    The network is that of Dosovitskiy et al. (2021, arXiv 2010.11929) over tubelets, with the
    "spatio-temporal attention" of ViViT (Arnab et al., 2021, arXiv 2103.15691). As in VideoMAE
    (Tong et al., 2022, arXiv 2203.12602), it averages all tokens instead of using a class token,
    has no bias on keys, and uses fixed sine-cosine positional embeddings, so that clips may have
    any size divisible by that of a tubelet. With `temporal_stride=1` the features of a frame still
    depend on all frames, since attention is joint.

    `Features.stages` are the token maps after each quarter of the blocks; the last is normalised.
    There are no batch statistics. `depth` must be a multiple of 4.

    | | width | depth | heads | parameters |
    |---|---|---|---|---|
    | Ti | 192 | 12 | 3 | 5.6 M |
    | S | 384 | 12 | 6 | 21.9 M |
    | B | 768 | 12 | 12 | 86.2 M |
    | L | 1024 | 24 | 16 | 303.9 M |
    """

    def __post_init__(self):
        super().__post_init__()
        if self.depth % STAGES:
            raise ValueError(f"depth must be a multiple of {STAGES}, got {self.depth}")

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return ViTNet(self, drop_path)


class ViTNet(nn.Module):
    """The network of a `ViT`."""

    config: ViT
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths."""
        config = self.config
        x = config.embed(clips)
        grid = x.shape
        x = x + jnp.asarray(sincos_positions(grid[1:-1], config.width), x.dtype)
        x = x.reshape(x.shape[0], -1, config.width)
        rates = drop_rates(self.drop_path * train, config.depth)
        quarter = config.depth // STAGES
        maps = [x.reshape(grid) for x in config.apply_blocks(x, rates)[quarter - 1 :: quarter]]
        maps[-1] = layer_norm(config.dtype, 1e-6, "norm")(maps[-1])
        return pool_features(maps)


def sincos_positions(grid: tuple[int, int, int], width: int) -> Float[np.ndarray, "t h w d"]:
    """Return sine-cosine positional embeddings of a grid, a third of the channels for each axis.

    With k = width // 6 frequencies 10000^(-i/k), an axis has k sines, then k cosines, of its
    coordinate times the frequency (Vaswani et al., 2017). Up to five remaining channels are 0.
    """
    count = width // 6
    frequencies = 10000.0 ** (-np.arange(count) / max(count, 1))
    angles = np.indices(grid)[..., None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)  # axis t h w d/3
    return np.pad(np.concatenate(waves, axis=-1), [(0, 0)] * 3 + [(0, width - 6 * count)])
