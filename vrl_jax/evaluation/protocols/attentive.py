"""Attentive probe: a learned query attends to the tokens of a frozen encoder."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.protocols.classifier import ClassifierEval
from vrl_jax.evaluation.supervised_step import LinearHead
from vrl_jax.types import Features

MLP_RATIO = 4
INITIAL_STD = 0.02
EPSILON = 1e-5  # of the layer normalisation

# In two passes: E[x²] - E[x]² loses the digits of a spread that is small beside the mean.
_layer_norm = partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)


@dataclass(frozen=True)
class Attentive(ClassifierEval):
    """An attentive probe on a frozen encoder, as in V-JEPA (2404.08471) and V-JEPA 2 (2506.09985).

    A learned query attends to all tokens of a feature map; a linear classifier reads the result.
    The attention ignores the order of tokens: it reads time only from tokens that carry their
    position, as those of a transformer do, or with `time_positions`. `dropout` and `normed` act on
    the pooled feature.

    Attributes:
      tokens: "all" positions of the feature map, or "frames", its mean over space at each time.
      stage: index into `Features.stages` of the map; -1 is the last.
      join_clips: attend to the tokens of all clips of a video at once, as both papers do, with as
        many clips in training as at test time; otherwise each clip is classified.
      depth: transformer blocks. The last is the cross-attention of the query, the others are
        self-attention of the tokens, whose memory is quadratic in their number.
      heads: attention heads, which must divide the width.
      width: channels of the probe; 0 keeps the encoder's, another number projects the tokens first.
      time_positions: normalise the tokens and add sine-cosine positions in time, for encoders whose
        tokens have none.
      final_norm: normalise the pooled feature before the classifier.
    """

    tokens: str = "all"
    stage: int = -1
    join_clips: bool = False
    depth: int = 1
    heads: int = 16
    width: int = 0
    time_positions: bool = False
    final_norm: bool = False

    task: ClassVar[str] = "attentive"

    def __post_init__(self):
        super().__post_init__()
        check.one_of(("all", "frames"), tokens=self.tokens)
        check.at_least(1, depth=self.depth, heads=self.heads)
        check.at_least(0, width=self.width)
        check.fraction(dropout=self.dropout)
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}, got {self.heads}")
        clips = self.train.sampling.clips, self.test.sampling.clips
        if self.join_clips and clips[0] != clips[1]:
            raise ValueError(
                f"train.sampling.clips must equal test.sampling.clips, {clips[1]}, where clips are "
                f"joined, got {clips[0]}"
            )

    def head(self, classes: int) -> nn.Module:
        """Return the probe, a module `(tokens f32[b t s d], train) -> logits f32[b classes]`."""
        return AttentiveHead(
            classes=classes,
            depth=self.depth,
            heads=self.heads,
            width=self.width,
            time_positions=self.time_positions,
            final_norm=self.final_norm,
            dropout=self.dropout,
            normed=self.normed,
        )

    def head_inputs(self, features: Features) -> Float[Array, "b t s d"]:
        """Return the tokens, float32, `s` at each time of a clip."""
        stage = features.stages[self.stage].astype(jnp.float32)
        if self.tokens == "frames":
            stage = stage.mean((2, 3), keepdims=True)
        tokens = stage.reshape(*stage.shape[:2], -1, stage.shape[-1])
        if not self.join_clips:
            return tokens
        _, times, places, width = tokens.shape
        videos = tokens.reshape(-1, self.test.sampling.clips, times, places, width)
        return videos.swapaxes(1, 2).reshape(-1, times, videos.shape[1] * places, width)

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for a stage that the encoder lacks, or heads that it cannot have."""
        super().check(task)
        size, frames = self.test.size, self.test.sampling.frames
        clip = jax.ShapeDtypeStruct((1, frames, size, size, 3), jnp.float32)
        encoder = task.model.encoder.module()
        features = jax.eval_shape(
            lambda variables, clip: encoder.apply(variables, clip, False),
            task.model.variables,
            clip,
        )
        count = len(features.stages)
        if not -count <= self.stage < count:
            raise ValueError(
                f"protocol.stage must lie in [{-count}, {count - 1}], since the encoder has "
                f"{count} feature maps, got {self.stage}"
            )
        width = features.stages[self.stage].shape[-1]
        if not self.width and width % self.heads:
            raise ValueError(
                f"protocol.heads must divide the width of the tokens, {width}, got {self.heads}: "
                "pass other --config.protocol.heads, or --config.protocol.width"
            )


class AttentiveHead(nn.Module):
    """Attentive pooling of tokens, and a linear classifier.

    Weights start as in the released code of V-JEPA 2: normal with a standard deviation of 0.02,
    and the last layer of the i-th residual block divided by sqrt(2i). Those of the linear
    classifier start as `LinearHead` has them.

    Attributes:
      classes: number of classes.
      depth, heads, width, time_positions, final_norm: see `Attentive`.
      dropout, normed: see `LinearHead`.
    """

    classes: int
    depth: int = 1
    heads: int = 16
    width: int = 0
    time_positions: bool = False
    final_norm: bool = False
    dropout: float = 0.0
    normed: bool = False

    @nn.compact
    def __call__(self, tokens: Float[Array, "b t s d"], train: bool) -> Float[Array, "b c"]:
        """Return the classes' logits."""
        x, width = tokens, self.width or tokens.shape[-1]
        if width != x.shape[-1]:
            x = _dense(width, name="project")(x)
        if self.time_positions:
            x = _layer_norm(use_bias=False, use_scale=False)(x)
            x = x + time_positions(x.shape[1], width)[:, None]
        x = x.reshape(len(x), -1, width)
        for number in range(1, self.depth):
            x = AttentionBlock(self.heads, number, name=f"block{number}")(x)
        query = self.param("query", nn.initializers.normal(INITIAL_STD), (1, width))
        query = jnp.broadcast_to(query, (len(x), 1, width))
        pool = AttentionBlock(self.heads, max(1, self.depth - 1), name="pool")
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
    """

    heads: int
    number: int = 1

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n d"], query: Float[Array, "b m d"] | None = None
    ) -> Float[Array, "b _ d"]:
        """Return the tokens after self-attention, or the query after cross-attention."""
        last = partial(_dense, std=INITIAL_STD / np.sqrt(2 * self.number))
        width = tokens.shape[-1]
        normed = _layer_norm(name="attention_norm")(tokens)
        source = normed if query is None else query

        def split(x: Float[Array, "b _ d"], name: str, bias: bool = True) -> Array:
            return _dense(width, name=name, bias=bias)(x).reshape(*x.shape[:2], self.heads, -1)

        y = jax.nn.dot_product_attention(
            split(source, "query"), split(normed, "key", bias=False), split(normed, "value")
        ).reshape(source.shape)
        x = query + y if query is not None else tokens + last(width, name="out")(y)
        y = nn.gelu(
            _dense(MLP_RATIO * width, name="expand")(_layer_norm(name="mlp_norm")(x)), False
        )
        return x + last(width, name="contract")(y)


def time_positions(frames: int, width: int) -> Float[np.ndarray, "t d"]:
    """Return sine-cosine positions: sines of k = width // 2 frequencies 10000^(-i/k), and cosines.

    The channel that an odd width has left is 0.
    """
    count = width // 2
    angles = np.arange(frames)[:, None] * 10000.0 ** (-np.arange(count) / max(count, 1))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return np.pad(waves, [(0, 0), (0, width - 2 * count)]).astype(np.float32)


def _dense(width: int, name: str, bias: bool = True, std: float = INITIAL_STD) -> nn.Dense:
    return nn.Dense(width, bias, kernel_init=nn.initializers.normal(std), name=name)
