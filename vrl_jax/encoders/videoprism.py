"""VideoPrism: attention in space, then in time."""

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.attention import (
    FixedSizeTransformer,
    drop_rates,
    layer_norm,
    learned_positions,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features

CAP = 50.0


@dataclass(frozen=True)
class VideoPrism(FixedSizeTransformer):
    """The video encoder of VideoPrism (2402.13217), ViViT's "factorised encoder": B by default.

    `depth` blocks attend among the patches of each frame, then `time_depth` blocks among the frames
    at each place. Tubelets are patches of one frame. Learned positions have the size of the
    pretraining clips; other clips are refused. Attention logits are capped at 50 by a tanh.
    `Features.stages` are the token maps after every block, those in space first; the last is
    normalised.

    | | width | depth | heads | frames |
    |---|---|---|---|---|
    | B | 768 | 12 | 12 | 16 |
    | L | 1024 | 24 | 16 | 8 |

    Attributes:
      time_depth: number of blocks in time.
    """

    temporal_stride: int = 1
    patch: int = 18
    size: int = 288
    time_depth: int = 4

    def __post_init__(self):
        super().__post_init__()
        check.at_least(1, time_depth=self.time_depth)
        if self.temporal_stride != 1:
            raise ValueError(f"temporal_stride must be 1, got {self.temporal_stride}")
        if self.size % self.patch:
            raise ValueError(f"size must be a multiple of patch {self.patch}, got {self.size}")

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return VideoPrismNet(self, drop_path)

    def blocks(self) -> list[str]:
        """Return the names of the blocks, those in space first."""
        return super().blocks() + [f"time_block{number}" for number in range(self.time_depth)]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter; "space_norm" belongs to the last block in space."""
        return self.depth if name == "space_norm" else super().layer_of(name)


class VideoPrismNet(nn.Module):
    """The network of a `VideoPrism`."""

    config: VideoPrism
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths.

        Raises:
          ValueError: the clips have another size than the learned positions.
        """
        config = self.config
        x = config.embed(clips)
        b, t, h, w, d = x.shape
        x = x.reshape(b * t, h * w, d)
        x = x + learned_positions(h * w, d, config.dtype, "space_positions")
        rates = drop_rates(self.drop_path * train, config.depth + config.time_depth)
        options = {"key_bias": True, "cap": CAP}
        outputs = config.apply_blocks(x, rates[: config.depth], **options)
        maps = [x.reshape(b, t, h, w, d) for x in outputs]
        x = layer_norm(config.dtype, 1e-6, "space_norm")(outputs[-1])
        x = x.reshape(b, t, h * w, d).swapaxes(1, 2).reshape(b * h * w, t, d)
        x = x + learned_positions(t, d, config.dtype, "time_positions")
        outputs = config.apply_blocks(x, rates[config.depth :], name="time_block", **options)
        maps += [x.reshape(b, h, w, t, d).transpose(0, 3, 1, 2, 4) for x in outputs]
        maps[-1] = layer_norm(config.dtype, 1e-6, "norm")(maps[-1])
        return pool_features(maps)
