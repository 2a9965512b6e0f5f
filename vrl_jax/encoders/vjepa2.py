"""V-JEPA 2 and 2.1: transformers with rotary positions over time, height and width."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.attention import Rotation, Transformer, drop_rates, layer_norm
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features

TRAINED_SIDE = 16  # patches: the grid whose positions V-JEPA 2.1 interpolates


@dataclass(frozen=True)
class VJEPA2(Transformer):
    """The encoder of V-JEPA 2 (2506.09985) and V-JEPA 2.1: ViT-L by default.

    Joint space-time attention with all biases and without a class token. Queries and keys are
    rotated by their positions in time, height and width, a third of the channels each, so that
    clips may have any size divisible by that of a tubelet. `Features.stages` are the token maps
    after every block; the last is normalised.

    Version 2 pairs neighbouring channels but repeats its list of frequencies as a whole, so that
    the two channels of a pair turn at different frequencies; its weights were trained so. Version
    2.1 gives both the same frequency, scales positions in height and width to a grid of 16 x 16
    patches, and adds a learned vector to the tokens of videos.

    | | width | depth | heads | hidden |
    |---|---|---|---|---|
    | B (2.1) | 768 | 12 | 12 | |
    | L | 1024 | 24 | 16 | |
    | H (2) | 1280 | 32 | 16 | |
    | g | 1408 | 40 | 22 | 6144 |

    Attributes:
      version: "2" or "2.1".
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    version: str = "2"

    def __post_init__(self):
        super().__post_init__()
        check.one_of(("2", "2.1"), version=self.version)
        channels = self.width // self.heads
        if channels < 6 or channels % 2:
            raise ValueError(
                f"heads must have at least 6 channels, two for each axis, and an even number, got "
                f"{channels}"
            )

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return VJEPA2Net(self, drop_path)


class VJEPA2Net(nn.Module):
    """The network of a `VJEPA2`."""

    config: VJEPA2
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths."""
        config = self.config
        x = config.embed(clips)
        grid = x.shape
        x = x.reshape(x.shape[0], -1, config.width)
        if config.version == "2.1":
            x = x + nn.Embed(1, config.width, dtype=config.dtype, name="modality")(jnp.array([0]))
        rotation = rotary_waves(grid[1:-1], config.width // config.heads, config.version)
        rates = drop_rates(self.drop_path * train, config.depth)
        outputs = config.apply_blocks(x, rates, rotation, key_bias=True)
        maps = [x.reshape(grid) for x in outputs]
        maps[-1] = layer_norm(config.dtype, 1e-6, "norm")(maps[-1])
        return pool_features(maps)


def rotary_waves(grid: tuple[int, int, int], channels: int, version: str) -> Rotation:
    """Return cosines and sines, f32[t*h*w channels], that rotate the channels of a head.

    With k = channels // 6, the first 2k channels have k frequencies 10000^(-i/k) of the position in
    time, the next 2k of that in height, then in width; the rest is not rotated.
    """
    count = channels // 6
    frequencies = 10000.0 ** (-np.arange(count) / count)
    positions = np.indices(grid).reshape(3, -1).astype(float)
    if version == "2":
        frequencies = np.tile(frequencies, 2)
    else:
        frequencies = np.repeat(frequencies, 2)
        sides = np.array(grid[1:])[:, None]
        positions[1:] *= (TRAINED_SIDE - 1) / np.maximum(sides - 1, 1)
    angles = np.concatenate([axis[:, None] * frequencies for axis in positions], axis=1)
    angles = np.pad(angles, [(0, 0), (0, channels - angles.shape[1])])
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)
