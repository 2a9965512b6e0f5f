"""Parts that video transformers share: tubelets, attention and pre-norm blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check

Rotation = tuple[Float[Array, "_ _"], Float[Array, "_ _"]]


@dataclass(frozen=True)
class Transformer:
    """Settings that video transformers share.

    Attributes:
      width: dimension of a token.
      depth: number of blocks.
      heads: attention heads, which must divide the width.
      hidden: width of the blocks' perceptrons; 0 is four times the width.
      temporal_stride: frames in a tubelet; 1 keeps the temporal resolution, `t' = t`.
      patch: height and width of a tubelet.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: recompute the activations within blocks in the backward pass: less memory, about a
        third more operations.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 0
    temporal_stride: int = 2
    patch: int = 16
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        check.at_least(1, depth=self.depth, heads=self.heads)
        check.at_least(1, temporal_stride=self.temporal_stride, patch=self.patch)
        check.at_least(0, hidden=self.hidden)
        if self.width < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads {self.heads}, got {self.width}")
        check.one_of(("float32", "bfloat16"), dtype=self.dtype)

    @property
    def dim(self) -> int:
        """Dimension of `Features.clip`."""
        return self.width

    def embed(self, clips: Float[Array, "b t h w c"]) -> Float[Array, "b _ _ _ d"]:
        """Embed the tubelets of clips; called inside a compact module.

        Raises:
          ValueError: the clips are not divisible into tubelets.
        """
        tubelet = (self.temporal_stride, self.patch)
        return TubeletEmbedding(self.width, *tubelet, self.dtype, name="embed")(clips)

    def block(self, name: str, drop: float = 0.0, **options: object) -> nn.Module:
        """Return a block of these settings, rematerialised if they say so."""
        layer = nn.remat(Block) if self.remat else Block
        return layer(self.heads, self.dtype, self.hidden, drop=drop, name=name, **options)

    def apply_blocks(
        self,
        x: Float[Array, "b n d"],
        rates: Sequence[float],
        *inputs: object,
        name: str = "block",
        **options: object,
    ) -> list[Float[Array, "b n d"]]:
        """Return the tokens after each of a series of blocks; called inside a compact module.

        Args:
          x: the tokens before the first.
          rates: at which each block drops paths.
          inputs: that every block takes besides the tokens.
          name: of the blocks, before their number.
          options: of `Block`.
        """
        outputs = []
        for number, drop in enumerate(rates):
            x = self.block(f"{name}{number}", drop, **options)(x, *inputs)
            outputs.append(x)
        return outputs

    def blocks(self) -> list[str]:
        """Return the names of the blocks, first to last."""
        return [f"block{number}" for number in range(self.depth)]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 for embeddings, i + 1 for block i, then the rest."""
        blocks = self.blocks()
        if name in ("norm", "fc_norm"):
            return len(blocks) + 1
        return blocks.index(name) + 1 if name in blocks else 0

    def layer_rates(self, names: Iterable[str], decay: float) -> dict[str, float]:
        """Return relative learning rates: `decay` to the number of layers after that of a name.

        The last normalisation and the classifier, one layer beyond the blocks, have rate 1, as in
        BEiT (Bao et al., 2021, arXiv 2106.08254) and the released code of VideoMAE.
        """
        last = len(self.blocks()) + 1
        return {name: decay ** (last - self.layer_of(name)) for name in names}


@dataclass(frozen=True)
class FixedSizeTransformer(Transformer):
    """Settings of video transformers whose learned positions fix the size of clips.

    Attributes:
      frames: frames in a clip.
      size: height and width of a clip.
    """

    frames: int = 16
    size: int = 224

    def __post_init__(self):
        super().__post_init__()
        check.at_least(1, frames=self.frames, size=self.size)

    def embed(self, clips: Float[Array, "b t h w c"]) -> Float[Array, "b _ _ _ d"]:
        """Embed the tubelets of clips; called inside a compact module.

        Raises:
          ValueError: the clips have another size than the learned positions.
        """
        if clips.shape[1:4] != (self.frames, self.size, self.size):
            raise ValueError(
                f"clips must be {self.frames} x {self.size} x {self.size}, the size of the learned "
                f"positions, got {' x '.join(map(str, clips.shape[1:4]))}"
            )
        return super().embed(clips)


class TubeletEmbedding(nn.Module):
    """A linear map of tubelets, with the kernel (t, h, w, in, out) of a convolution.

    Attributes:
      width: dimension of a token.
      frames: frames in a tubelet.
      patch: height and width of a tubelet.
      dtype: of the computation.
    """

    width: int
    frames: int
    patch: int
    dtype: str

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w c"]) -> Float[Array, "b _ _ _ d"]:
        """Embed the tubelets of `clips`."""
        shape = (self.frames, self.patch, self.patch, clips.shape[-1], self.width)
        init = nn.initializers.xavier_uniform(in_axis=(0, 1, 2, 3), out_axis=4)
        kernel = self.param("kernel", init, shape).reshape(-1, self.width)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = cut_tubelets(clips, self.frames, self.patch).astype(self.dtype)
        return x @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: self-attention and a perceptron.

    Attributes:
      heads: attention heads.
      dtype: of the computation; attention logits and softmax are float32.
      hidden: width of the perceptron; 0 is four times that of the tokens.
      epsilon: of the normalisations.
      key_bias: whether keys have a bias.
      tanh_gelu: whether the perceptron's GELU is the approximation by a tanh.
      cap: attention logits are cap * tanh(logits / cap); 0 leaves them as they are.
      drop: probability of dropping each of the two branches, see `drop_path`.
    """

    heads: int
    dtype: str
    hidden: int = 0
    epsilon: float = 1e-6
    key_bias: bool = False
    tanh_gelu: bool = False
    cap: float = 0.0
    drop: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], rotation: Rotation | None = None
    ) -> Float[Array, "b n d"]:
        """Compute y = x + attention(norm(x)), then y + mlp(norm(y))."""
        norm = partial(layer_norm, self.dtype, self.epsilon)
        options = {"key_bias": self.key_bias, "rotation": rotation, "cap": self.cap}
        y = norm(name="attention_norm")(x)
        x = x + drop_path(self_attention(y, self.heads, self.dtype, **options), self.drop)
        y = norm(name="perceptron_norm")(x)
        return x + drop_path(perceptron(y, self.hidden, self.dtype, self.tanh_gelu), self.drop)


def drop_path(x: Float[Array, "b n d"], rate: float) -> Float[Array, "b n d"]:
    """Set whole rows to 0 with a probability, and divide the others by its complement.

    On the branches of residual blocks this is stochastic depth (Huang et al., 2016, arXiv
    1603.09382). Called inside a compact module with the random numbers "dropout".
    """
    return nn.Dropout(rate, broadcast_dims=(1, 2), deterministic=False)(x) if rate else x


def drop_rates(last: float, depth: int) -> list[float]:
    """Return rates that grow linearly over blocks, from 0 at the first to that of the last."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]


def dense(dtype: str, width: int, name: str, bias: bool = True) -> nn.Dense:
    """Return a linear layer, its kernel drawn as in ViT."""
    init = nn.initializers.xavier_uniform()
    return nn.Dense(width, use_bias=bias, dtype=dtype, kernel_init=init, name=name)


def layer_norm(dtype: str, epsilon: float, name: str, bias: bool = True) -> nn.LayerNorm:
    """Return a normalisation over channels, with the variance in two passes."""
    options = {"use_bias": bias, "use_fast_variance": False}
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, name=name, **options)


def perceptron(
    x: Float[Array, "b n d"], hidden: int, dtype: str, tanh_gelu: bool = False
) -> Float[Array, "b n d"]:
    """Apply two linear layers with a GELU between them; called inside a compact module."""
    y = dense(dtype, hidden or 4 * x.shape[-1], "expand")(x)
    return dense(dtype, x.shape[-1], "contract")(nn.gelu(y, approximate=tanh_gelu))


def self_attention(
    x: Float[Array, "b n d"], heads: int, dtype: str, **options: Any
) -> Float[Array, "b n d"]:
    """Attend among tokens and project the result; the options are those of `cross_attention`."""
    return cross_attention(x, x, heads, dtype, **options)


def cross_attention(
    x: Float[Array, "b n d"],
    context: Float[Array, "b m d"],
    heads: int,
    dtype: str,
    *,
    prefix: str = "",
    key_bias: bool = False,
    rotation: Rotation | None = None,
    cap: float = 0.0,
) -> Float[Array, "b n d"]:
    """Attend from tokens to a context and project the result; called inside a compact module.

    Args:
      x: the tokens that give the queries, normalised.
      context: the tokens that give keys and values.
      heads: attention heads.
      dtype: of the computation; logits and softmax are float32.
      prefix: of the names of the four linear layers.
      key_bias: whether keys have a bias.
      rotation: cosines and sines by which `rotate` turns queries and keys.
      cap: logits are cap * tanh(logits / cap); 0 leaves them as they are.
    """

    def project(
        tokens: Float[Array, "b k d"], name: str, bias: bool = True
    ) -> Float[Array, "b k heads _"]:
        y = dense(dtype, x.shape[-1], f"{prefix}{name}", bias)(tokens)
        return y.reshape(*tokens.shape[:2], heads, -1)

    query = project(x, "query")
    key, value = project(context, "key", key_bias), project(context, "value")
    if rotation is not None:
        query, key = rotate(query, *rotation), rotate(key, *rotation)
    if cap:
        scale = query.shape[-1] ** -0.5
        logits = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(cap * jnp.tanh(scale * logits / cap)).astype(value.dtype)
        y = jnp.einsum("bhnm,bmhd->bnhd", weights, value)
    else:
        y = jax.nn.dot_product_attention(query, key, value)
    return dense(dtype, x.shape[-1], f"{prefix}out")(y.reshape(x.shape))


def rotate(
    x: Float[Array, "b n heads d"], cosine: Float[Array, "n d"], sine: Float[Array, "n d"]
) -> Float[Array, "b n heads d"]:
    """Rotate pairs of neighbouring channels (Su et al., 2021, arXiv 2104.09864), in float32."""
    y = x.astype(jnp.float32)
    turned = jnp.stack([-y[..., 1::2], y[..., ::2]], axis=-1).reshape(y.shape)
    return (y * cosine[:, None] + turned * sine[:, None]).astype(x.dtype)


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


def learned_positions(count: int, width: int, dtype: str, name: str) -> Float[Array, "n d"]:
    """Return a table of learned positions; called inside a compact module."""
    init = nn.initializers.normal(0.02)
    return nn.Embed(count, width, dtype=dtype, embedding_init=init, name=name)(jnp.arange(count))


def prepend_class(x: Float[Array, "b n d"], dtype: str) -> Float[Array, "b _ d"]:
    """Put a learned class token before the tokens; called inside a compact module."""
    token = nn.Embed(1, x.shape[-1], dtype=dtype, name="class_token")(jnp.zeros(1, int))
    return jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, x.shape[-1])), x], axis=1)
