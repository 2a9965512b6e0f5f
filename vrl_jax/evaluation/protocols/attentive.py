"""Attentive probe: a learned query attends to the tokens of a frozen encoder."""

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.protocols.classifier import ClassifierEval
from vrl_jax.probes.classifier_heads import AttentiveHead
from vrl_jax.types import Features


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
        stages = task.feature_shapes().stages
        count = len(stages)
        if not -count <= self.stage < count:
            raise ValueError(
                f"protocol.stage must lie in [{-count}, {count - 1}], since the encoder has "
                f"{count} feature maps, got {self.stage}"
            )
        width = stages[self.stage].shape[-1]
        if not self.width and width % self.heads:
            raise ValueError(
                f"protocol.heads must divide the width of the tokens, {width}, got {self.heads}: "
                "pass other --config.protocol.heads, or --config.protocol.width"
            )
