"""Classifiers of frozen features: a linear one, and a learned query that attends to tokens."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LINEAR_STD = 0.01  # of the initial weights of a linear classifier
MLP_RATIO = 4
INITIAL_STD = 0.02
EPSILON = 1e-5  # of the layer normalisation

# In two passes: E[x²] - E[x]² loses the digits of a spread that is small beside the mean.
_layer_norm = partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)


class LinearHead(nn.Module):
    """Linear classifier of pooled features.

    Attributes:
      classes: number of classes.
      dropout: probability of dropping a feature in training.
      normed: scale features to unit length and batch-normalise them first.
    """

    classes: int
    dropout: float = 0.0
    normed: bool = False

    @nn.compact
    def __call__(self, features: Float[Array, "b d"], train: bool) -> Float[Array, "b c"]:
        """Return the classes' logits."""
        if self.normed:
            length = jnp.linalg.norm(features, axis=-1, keepdims=True)
            features = features / jnp.maximum(length, 1e-12)
            features = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False)(features)
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(LINEAR_STD))(features)


class AttentiveHead(nn.Module):
    """Attentive pooling of tokens, and a linear classifier.

    Weights start as in the released code of V-JEPA 2: normal, by default with the same deviation,
    and the last layer of the i-th residual block divided by sqrt(2i). Those of the linear
    classifier start as `LinearHead` has them.

    Attributes:
      classes: number of classes.
      depth: transformer blocks, of which the last is the cross-attention of the query.
      heads: attention heads, which must divide the width.
      width: channels of the probe; 0 keeps those of the tokens.
      time_positions: normalise the tokens and add sine-cosine positions in time.
      final_norm: normalise the pooled feature before the classifier.
      dropout, normed: see `LinearHead`.
      initial_std: standard deviation of the initial weights.
    """

    classes: int
    depth: int = 1
    heads: int = 16
    width: int = 0
    time_positions: bool = False
    final_norm: bool = False
    dropout: float = 0.0
    normed: bool = False
    initial_std: float = INITIAL_STD

    @nn.compact
    def __call__(self, tokens: Float[Array, "b t s d"], train: bool) -> Float[Array, "b c"]:
        """Return the classes' logits."""
        x, width, std = tokens, self.width or tokens.shape[-1], self.initial_std
        if width != x.shape[-1]:
            x = _dense(width, std, name="project")(x)
        if self.time_positions:
            x = _layer_norm(use_bias=False, use_scale=False)(x)
            x = x + time_positions(x.shape[1], width)[:, None]
        x = x.reshape(len(x), -1, width)
        for number in range(1, self.depth):
            x = AttentionBlock(self.heads, number, std, name=f"block{number}")(x)
        query = self.param("query", nn.initializers.normal(std), (1, width))
        query = jnp.broadcast_to(query, (len(x), 1, width))
        pool = AttentionBlock(self.heads, max(1, self.depth - 1), std, name="pool")
        pooled = pool(x, query)[:, 0]
        if self.final_norm:
            pooled = _layer_norm(name="norm")(pooled)
        return LinearHead(self.classes, self.dropout, self.normed, name="classifier")(pooled, train)


class AttentionBlock(nn.Module):
    """A transformer block, of self-attention or of the cross-attention of a query.

    Self-attention: y = x + out(attention(norm(x))). Cross-attention: y = query + attention(query,
    norm(x)), without normalisation of the query and without a projection of the result. Then
    y + mlp(norm(y)), the perceptron four times as wide, with a GELU. Keys have no bias, since the
    softmax cancels it.

    Attributes:
      heads: of the attention.
      number: of the block, from 1; scales its initial weights.
      initial_std: standard deviation of the initial weights.
    """

    heads: int
    number: int = 1
    initial_std: float = INITIAL_STD

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n d"], query: Float[Array, "b m d"] | None = None
    ) -> Float[Array, "b _ d"]:
        """Return the tokens after self-attention, or the query after cross-attention."""
        width, std = tokens.shape[-1], self.initial_std
        last = std / np.sqrt(2 * self.number)
        normed = _layer_norm(name="attention_norm")(tokens)
        source = normed if query is None else query

        def split(x: Float[Array, "b _ d"], name: str, bias: bool = True) -> Array:
            return _dense(width, std, name=name, bias=bias)(x).reshape(*x.shape[:2], self.heads, -1)

        y = jax.nn.dot_product_attention(
            split(source, "query"), split(normed, "key", bias=False), split(normed, "value")
        ).reshape(source.shape)
        x = query + y if query is not None else tokens + _dense(width, last, name="out")(y)
        y = nn.gelu(
            _dense(MLP_RATIO * width, std, name="expand")(_layer_norm(name="mlp_norm")(x)), False
        )
        return x + _dense(width, last, name="contract")(y)


def time_positions(frames: int, width: int) -> Float[np.ndarray, "t d"]:
    """Return sine-cosine positions: sines of k = width // 2 frequencies 10000^(-i/k), and cosines.

    The channel that an odd width has left is 0.
    """
    count = width // 2
    angles = np.arange(frames)[:, None] * 10000.0 ** (-np.arange(count) / max(count, 1))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return np.pad(waves, [(0, 0), (0, width - 2 * count)]).astype(np.float32)


def _dense(width: int, std: float, name: str, bias: bool = True) -> nn.Dense:
    return nn.Dense(width, bias, kernel_init=nn.initializers.normal(std), name=name)
