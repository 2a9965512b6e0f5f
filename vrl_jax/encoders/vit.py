"""ViT: a video transformer with joint attention over the space-time tubelets of a clip."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import pool_features
from vrl_jax.types import Features

STAGES = 4


@dataclass(frozen=True)
class ViT:
    """A video transformer with joint space-time attention: ViT-B by default.

    The network is that of Dosovitskiy et al. (2021, arXiv 2010.11929) over tubelets, with the
    "spatio-temporal attention" of ViViT (Arnab et al., 2021, arXiv 2103.15691). As in VideoMAE
    (Tong et al., 2022, arXiv 2203.12602), it averages all tokens instead of using a class token,
    has no bias on keys, and uses fixed sine-cosine positional embeddings, so that clips may have
    any size divisible by that of a tubelet.

    `Features.stages` are the token maps after each quarter of the blocks; the last is normalised.
    There are no batch statistics.

    | | width | depth | heads | parameters |
    |---|---|---|---|---|
    | Ti | 192 | 12 | 3 | 5.6 M |
    | S | 384 | 12 | 6 | 21.9 M |
    | B | 768 | 12 | 12 | 86.2 M |
    | L | 1024 | 24 | 16 | 303.9 M |

    Attributes:
      width: dimension of a token.
      depth: number of blocks, a multiple of 4.
      heads: attention heads.
      temporal_stride: frames in a tubelet; 1 keeps the temporal resolution, `t' = t`. Since
        attention is joint, the features of a frame depend on all frames.
      patch: height and width of a tubelet.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: recompute the activations within blocks in the backward pass: less memory, about a
        third more operations.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    temporal_stride: int = 2
    patch: int = 16
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        check.at_least(1, heads=self.heads, temporal_stride=self.temporal_stride, patch=self.patch)
        if self.width < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads {self.heads}, got {self.width}")
        if self.depth < 1 or self.depth % STAGES:
            raise ValueError(f"depth must be a multiple of {STAGES}, got {self.depth}")
        check.one_of(("float32", "bfloat16"), dtype=self.dtype)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return self.width

    def module(self) -> nn.Module:
        """Build the network."""
        return ViTNet(self)


class ViTNet(nn.Module):
    """The network of a `ViT`."""

    config: ViT

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; `train` has no effect."""
        config = self.config
        x = cut_tubelets(clips, config.temporal_stride, config.patch)
        x = _dense(config.dtype)(config.width, name="embed")(x)
        grid = x.shape
        x = x + jnp.asarray(sincos_positions(grid[1:-1], config.width), x.dtype)
        x, maps = x.reshape(len(x), -1, config.width), []
        layer = nn.remat(Block) if config.remat else Block
        for block in range(config.depth):
            x = layer(config.heads, config.dtype, name=f"block{block}")(x)
            if (block + 1) % (config.depth // STAGES) == 0:
                maps.append(x.reshape(grid))
        maps[-1] = _norm(config.dtype)(name="norm")(maps[-1])
        return pool_features(maps)


class Block(nn.Module):
    """Pre-norm transformer block: self-attention and an MLP four times as wide.

    Attributes:
      heads: attention heads.
      dtype: of the computation; attention logits and softmax are float32.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Compute y = x + attention(norm(x)), then y + mlp(norm(y))."""
        dense, norm, width = _dense(self.dtype), _norm(self.dtype), x.shape[-1]

        def project(name: str, bias: bool) -> Float[Array, "b n heads _"]:
            projected = dense(width, use_bias=bias, name=name)(y)
            return projected.reshape(*x.shape[:2], self.heads, -1)

        y = norm(name="attention_norm")(x)
        query, key, value = project("query", True), project("key", False), project("value", True)
        y = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        x = x + dense(width, name="out")(y)
        y = dense(4 * width, name="expand")(norm(name="perceptron_norm")(x))
        return x + dense(width, name="contract")(nn.gelu(y, approximate=False))


def _dense(dtype: str) -> partial:
    return partial(nn.Dense, dtype=dtype, kernel_init=nn.initializers.xavier_uniform())


def _norm(dtype: str) -> partial:
    return partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype)


def cut_tubelets(
    clips: Float[Array, "b t h w c"], frames: int, patch: int
) -> Float[Array, "b _ _ _ _"]:
    """Split clips into tubelets of `frames` x `patch` x `patch`, each flattened in that order.

    Raises:
      ValueError: the clips are not divisible into tubelets.
    """
    _, t, h, w, c = clips.shape
    if t % frames or h % patch or w % patch:
        raise ValueError(
            f"clips must be divisible into tubelets of {frames} x {patch} x {patch}, "
            f"got {t} x {h} x {w}"
        )
    x = clips.reshape(-1, t // frames, frames, h // patch, patch, w // patch, patch, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(*x.shape[:4], -1)


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
