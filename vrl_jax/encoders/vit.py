"""ViT: a transformer over the tubelets of a clip, attending jointly over space and time."""

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

    The network is that of Dosovitskiy et al. (2021, arXiv 2010.11929) over tubelets (Arnab et al.,
    2021, ViViT's "spatio-temporal attention", arXiv 2103.15691), with VideoMAE's choices (Tong et
    al., 2022, arXiv 2203.12602): the mean of all tokens instead of a class token, no bias on keys,
    and fixed sine-cosine positions, so that clips may have any size that tubelets divide.

    `Features.stages` are the maps of tokens after each quarter of the blocks; the last is
    normalised. There are no batch statistics.

    | | width | depth | heads | parameters |
    |---|---|---|---|---|
    | Ti | 192 | 12 | 3 | 5.6 M |
    | S | 384 | 12 | 6 | 21.9 M |
    | B | 768 | 12 | 12 | 86.2 M |
    | L | 1024 | 24 | 16 | 303.9 M |

    Attributes:
      width: of a token.
      depth: number of blocks, a multiple of 4.
      heads: of the attention.
      temporal_stride: frames in a tubelet; 1 keeps the time axis, `t' = t`. Every frame's tokens
        attend to those of all others, so that a frame's feature is never of that frame alone.
      patch: height and width of a tubelet.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: keep only the inputs of blocks for the gradient and compute all within them again,
        forward: less memory, about a third more operations.
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
        """The width of `Features.clip`."""
        return self.width

    def module(self) -> nn.Module:
        """Build the network."""
        return ViTNet(self)


class ViTNet(nn.Module):
    """The network of a `ViT`."""

    config: ViT

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w 3"], train: bool) -> Features:
        """Encode `clips`; training makes no difference."""
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
    """Attention and a perceptron four times as wide, each normalised before and added.

    Attributes:
      heads: of the attention.
      dtype: of the computation; the attention's logits and softmax are float32.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Compute y = x + attention(norm(x)), then y + perceptron(norm(y))."""
        dense, norm, width = _dense(self.dtype), _norm(self.dtype), x.shape[-1]

        def part(name: str, bias: bool) -> Float[Array, "b n heads _"]:
            found = dense(width, use_bias=bias, name=name)(y)
            return found.reshape(*x.shape[:2], self.heads, -1)

        y = norm(name="attention_norm")(x)
        parts = part("query", True), part("key", False), part("value", True)
        y = jax.nn.dot_product_attention(*parts).reshape(x.shape)
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
    """Cut clips into blocks of `frames` x `patch` x `patch`, each flattened in that order.

    Raises:
      ValueError: they do not divide into such blocks.
    """
    _, t, h, w, c = clips.shape
    if t % frames or h % patch or w % patch:
        raise ValueError(
            f"clips must divide into tubelets of {frames} x {patch} x {patch}, got {t} x {h} x {w}"
        )
    x = clips.reshape(-1, t // frames, frames, h // patch, patch, w // patch, patch, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(*x.shape[:4], -1)


def sincos_positions(grid: tuple[int, int, int], width: int) -> Float[np.ndarray, "t h w d"]:
    """Return sine-cosine positions on a grid, a third of the channels for each of its axes.

    With k = width // 6 frequencies 10000^(-i/k), an axis has k sines, then k cosines, of its
    coordinate times the frequency (Vaswani et al., 2017). The up to five channels left over are 0.
    """
    count = width // 6
    frequencies = 10000.0 ** (-np.arange(count) / max(count, 1))
    angles = np.indices(grid)[..., None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)  # axis t h w d/3
    return np.pad(np.concatenate(waves, axis=-1), [(0, 0)] * 3 + [(0, width - 6 * count)])
