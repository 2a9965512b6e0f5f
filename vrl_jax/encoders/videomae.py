"""VideoMAE and VideoMAE v2: transformers pretrained by masked autoencoding."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.attention import Transformer, drop_rates, layer_norm
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class VideoMAE(Transformer):
    """The encoder of VideoMAE (2203.12602) and VideoMAE v2 (2303.16727): ViT-B by default.

    Joint space-time attention with biases on queries and values, none on keys. Fixed sines and
    cosines of the number of a token in the flattened clip mark positions, so that clips may have
    any size divisible by that of a tubelet; the same place has another embedding in a clip of
    another height or width. `Features.stages` are the token maps after every block.

    | | width | depth | heads | hidden |
    |---|---|---|---|---|
    | S | 384 | 12 | 6 | |
    | B | 768 | 12 | 12 | |
    | L | 1024 | 24 | 16 | |
    | H | 1280 | 32 | 16 | |
    | g (v2) | 1408 | 40 | 16 | 6144 |

    Attributes:
      norm: "tokens" normalises the tokens of the last block, as pretraining does; "mean" leaves
        them and normalises their mean (`fc_norm`), as fine-tuned weights do; "none" does neither.
      epsilon: of all normalisations.
    """

    norm: str = "tokens"
    epsilon: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        check.one_of(("tokens", "mean", "none"), norm=self.norm)
        check.positive(epsilon=self.epsilon)

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return VideoMAENet(self, drop_path)


class VideoMAENet(nn.Module):
    """The network of a `VideoMAE`."""

    config: VideoMAE
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths."""
        config = self.config
        x = config.embed(clips)
        grid = x.shape
        x = x.reshape(x.shape[0], -1, config.width)
        x = x + jnp.asarray(sine_table(x.shape[1], config.width), x.dtype)
        rates = drop_rates(self.drop_path * train, config.depth)
        outputs = config.apply_blocks(x, rates, epsilon=config.epsilon)
        maps = [x.reshape(grid) for x in outputs]
        if config.norm == "tokens":
            maps[-1] = layer_norm(config.dtype, config.epsilon, "norm")(maps[-1])
        features = pool_features(maps)
        if config.norm != "mean":
            return features
        norm = layer_norm("float32", config.epsilon, "fc_norm")
        return features._replace(clip=norm(features.clip), frames=norm(features.frames))


def sine_table(count: int, width: int) -> Float[np.ndarray, "n d"]:
    """Return sines (even channels) and cosines (odd) of the numbers of tokens.

    Channels 2i and 2i + 1 have the frequency 10000^(-2i/width) (Vaswani et al., 2017).
    """
    frequencies = 10000.0 ** (-2 * (np.arange(width) // 2) / width)
    angles = np.arange(count)[:, None] * frequencies
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))
