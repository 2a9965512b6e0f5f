"""TimeSformer: attention in time and in space in every block."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax.encoders.attention import (
    FixedSizeTransformer,
    dense,
    drop_path,
    drop_rates,
    layer_norm,
    learned_positions,
    perceptron,
    prepend_class,
    self_attention,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features


@dataclass(frozen=True)
class TimeSformer(FixedSizeTransformer):
    """TimeSformer (2102.05095) with divided space-time attention: TimeSformer-B by default.

    Each block attends among the frames at each place, then among the patches of each frame and the
    class token. Tubelets are patches of one frame. Learned positions have the size of the
    pretraining clips; other clips are refused. `Features.stages` are the token maps after every
    block, without the class token; the last is normalised. As for every encoder, the clip vector is
    the mean of the tokens.
    """

    temporal_stride: int = 1
    frames: int = 8

    def __post_init__(self):
        super().__post_init__()
        if self.temporal_stride != 1:
            raise ValueError(f"temporal_stride must be 1, got {self.temporal_stride}")

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return TimeSformerNet(self, drop_path)


class TimeSformerNet(nn.Module):
    """The network of a `TimeSformer`."""

    config: TimeSformer
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths.

        Raises:
          ValueError: the clips have another size than the learned positions.
        """
        config = self.config
        x, maps = config.embed(clips), []
        b, t, h, w, d = grid = x.shape
        places = learned_positions(1 + h * w, d, config.dtype, "space_positions")
        times = learned_positions(t, d, config.dtype, "time_positions")
        x = x.reshape(b, t, h * w, d) + places[1:] + times[:, None]
        x = prepend_class(x.reshape(b, -1, d), config.dtype)
        x = x.at[:, 0].add(places[0])
        layer = nn.remat(DividedBlock) if config.remat else DividedBlock
        rates = drop_rates(self.drop_path * train, config.depth)
        options = config.heads, config.dtype, config.hidden, t
        for name, drop in zip(config.blocks(), rates, strict=True):
            x = layer(*options, drop, name=name)(x)
            maps.append(x[:, 1:].reshape(grid))
        maps[-1] = layer_norm(config.dtype, 1e-6, "norm")(maps[-1])
        return pool_features(maps)


class DividedBlock(nn.Module):
    """Pre-norm block with attention in time, attention in space, and a perceptron.

    The class token takes part in attention in space, once for each frame, and receives the mean.

    Attributes:
      heads: attention heads.
      dtype: of the computation; attention logits and softmax are float32.
      hidden: width of the perceptron; 0 is four times that of the tokens.
      frames: frames in a clip.
      drop: probability of dropping each branch: attention in time at a place, attention in space in
        a frame, the perceptron of a clip.
    """

    heads: int
    dtype: str
    hidden: int
    frames: int
    drop: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Transform the class token and the tokens of all frames."""
        (b, _, d), t = x.shape, self.frames
        options = {"heads": self.heads, "dtype": self.dtype, "key_bias": True}
        first, x = x[:, :1], x[:, 1:]

        y = layer_norm(self.dtype, 1e-6, "time_norm")(x)
        y = y.reshape(b, t, -1, d).swapaxes(1, 2).reshape(-1, t, d)
        y = drop_path(self_attention(y, prefix="time_", **options), self.drop)
        y = dense(self.dtype, d, "time_project")(y)
        x = x + y.reshape(b, -1, t, d).swapaxes(1, 2).reshape(x.shape)

        frames = jnp.concatenate([jnp.repeat(first, t, axis=0), x.reshape(b * t, -1, d)], axis=1)
        y = layer_norm(self.dtype, 1e-6, "attention_norm")(frames)
        y = drop_path(self_attention(y, **options), self.drop)
        mean = y[:, 0].reshape(b, t, d).mean(1, keepdims=True)
        x = jnp.concatenate([first + mean, x + y[:, 1:].reshape(x.shape)], axis=1)

        y = layer_norm(self.dtype, 1e-6, "perceptron_norm")(x)
        return x + drop_path(perceptron(y, self.hidden, self.dtype), self.drop)
