"""RVM: a transformer over the patches of a frame, and a recurrent one over frames."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.attention import (
    Transformer,
    cross_attention,
    dense,
    drop_path,
    drop_rates,
    layer_norm,
    perceptron,
    prepend_class,
    self_attention,
)
from vrl_jax.encoders.layers import pool_features
from vrl_jax.encoders.videomae import sine_table
from vrl_jax.types import Features

TRAINED_SIDE = 16  # patches: the grid whose positions are interpolated


@dataclass(frozen=True)
class RVM(Transformer):
    """The encoder of RVM (2512.13684): ViT-L with a recurrent core of four blocks by default.

    `depth` blocks attend among the patches of a frame and a class token. The core then updates a
    state, one vector for each token, from frame to frame. Its blocks attend from the tokens of the
    frame to the state, then among the tokens. A gated recurrent unit (Cho et al., 2014, arXiv
    1406.1078) mixes their result with the state, which starts at zero. The features of a frame
    depend on that frame and those before it.

    Fixed sines and cosines of the number of a patch in a frame of 16 x 16 patches mark positions.
    They are interpolated to frames of another size, which may be any number of patches. Clips may
    have any number of frames; time grows linearly with it.

    `Features.stages` are the token maps after every block of a frame, then the states. Class tokens
    are left out. The frame vectors are the means of the states over space.

    | | width | depth | heads |
    |---|---|---|---|
    | S | 384 | 12 | 6 |
    | B | 768 | 12 | 12 |
    | L | 1024 | 24 | 16 |
    | H | 1280 | 32 | 16 |

    Attributes:
      core_depth: number of blocks in the core.
      core_heads: attention heads of the core; 0 is as many as `heads`.
      core_hidden: width of the core's perceptrons; 0 is four times the width.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    temporal_stride: int = 1
    core_depth: int = 4
    core_heads: int = 0
    core_hidden: int = 0

    def __post_init__(self):
        super().__post_init__()
        check.at_least(1, core_depth=self.core_depth)
        check.at_least(0, core_heads=self.core_heads, core_hidden=self.core_hidden)
        if self.temporal_stride != 1:
            raise ValueError(f"temporal_stride must be 1, got {self.temporal_stride}")
        if self.core_heads and self.width % self.core_heads:
            raise ValueError(
                f"width must be a multiple of core_heads {self.core_heads}, got {self.width}"
            )

    def module(self, drop_path: float = 0.0) -> nn.Module:
        """Build the network; `drop_path` is the rate of its last block in training."""
        return RVMNet(self, drop_path)

    def blocks(self) -> list[str]:
        """Return the names of the blocks, then of the core, which is one layer."""
        return [*super().blocks(), "core"]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter; "frame_norm" belongs to the last block of a frame."""
        return self.depth if name == "frame_norm" else super().layer_of(name)


class RVMNet(nn.Module):
    """The network of an `RVM`."""

    config: RVM
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` drops paths."""
        config = self.config
        x = config.embed(clips)
        b, t, h, w, d = grid = x.shape
        x = x + resize_positions(h, w, d).astype(x.dtype)
        x = prepend_class(x.reshape(b * t, h * w, d), config.dtype)
        rates = drop_rates(self.drop_path * train, config.depth + config.core_depth)
        options = {"key_bias": True, "tanh_gelu": True}
        outputs = config.apply_blocks(x, rates[: config.depth], **options)
        maps = [x[:, 1:].reshape(grid) for x in outputs]
        x = layer_norm(config.dtype, 1e-6, "frame_norm")(outputs[-1]).reshape(b, t, 1 + h * w, d)
        scan = nn.scan(
            RecurrentCore,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        state = jnp.zeros((b, 1 + h * w, d), jnp.float32)
        _, x = scan(config, tuple(rates[config.depth :]), name="core")(state, x)
        maps.append(x[:, :, 1:].reshape(grid))
        return pool_features(maps)


class RecurrentCore(nn.Module):
    """A gated recurrent unit whose candidate state is that of a transformer.

    Attributes:
      config: of the encoder.
      drops: rates at which the blocks drop paths.
    """

    config: RVM
    drops: tuple[float, ...]

    @nn.compact
    def __call__(
        self, state: Float[Array, "b n d"], x: Float[Array, "b n d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Return the state after the tokens `x` of a frame, in float32 and as an output."""
        config = self.config

        def gate(name: str) -> Float[Array, "b n d"]:
            options = {"dtype": config.dtype, "width": config.width, "bias": False}
            y = dense(name=f"input_{name}", **options)(x)
            y = y + dense(name=f"state_{name}", **options)(state)
            return nn.sigmoid(y.astype(jnp.float32))

        update, reset = gate("update"), gate("reset")
        context = layer_norm("float32", 1e-4, "state_norm", bias=False)(state)
        context = (reset * context).astype(config.dtype)
        layer = nn.remat(CrossBlock) if config.remat else CrossBlock
        options = config.core_heads or config.heads, config.dtype, config.core_hidden
        for block, drop in enumerate(self.drops):
            x = layer(*options, drop, name=f"block{block}")(x, context)
        x = layer_norm(config.dtype, 1e-6, "norm")(x)
        state = (1 - update) * state + update * x
        return state, state.astype(config.dtype)


class CrossBlock(nn.Module):
    """Transformer block: attention to a context, a perceptron and self-attention, in this order.

    Attributes:
      heads: attention heads.
      dtype: of the computation; attention logits and softmax are float32.
      hidden: width of the perceptron; 0 is four times that of the tokens.
      drop: probability of dropping each of the three branches, see `drop_path`.
    """

    heads: int
    dtype: str
    hidden: int
    drop: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], context: Float[Array, "b n d"]
    ) -> Float[Array, "b n d"]:
        """Transform the tokens; the context is not normalised here."""
        options = {"heads": self.heads, "dtype": self.dtype, "key_bias": True}
        y = layer_norm(self.dtype, 1e-6, "cross_norm")(x)
        x = x + drop_path(cross_attention(y, context, prefix="cross_", **options), self.drop)
        y = layer_norm(self.dtype, 1e-6, "perceptron_norm")(x)
        x = x + drop_path(perceptron(y, self.hidden, self.dtype, tanh_gelu=True), self.drop)
        y = layer_norm(self.dtype, 1e-6, "attention_norm")(x)
        return x + drop_path(self_attention(y, **options), self.drop)


def resize_positions(height: int, width: int, channels: int) -> Float[Array, "h w d"]:
    """Return the sines of a frame of 16 x 16 patches, interpolated to another by a cubic filter."""
    table = sine_table(TRAINED_SIDE**2, channels).reshape(TRAINED_SIDE, TRAINED_SIDE, channels)
    table = jnp.asarray(table, jnp.float32)
    if (height, width) == (TRAINED_SIDE, TRAINED_SIDE):
        return table
    return jax.image.resize(table, (height, width, channels), "cubic")
