"""Fine-tuning: encoder and linear classifier are trained together."""

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn

from vrl_jax import check
from vrl_jax.augment.mixing import Mix
from vrl_jax.encoders.attention import Transformer
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.protocols.classifier import ClassifierEval
from vrl_jax.methods.network import EncoderConfig


@dataclass(frozen=True)
class Finetune(ClassifierEval):
    """Encoder and linear classifier trained together.

    Attributes:
      encoder_rate: learning rate of the encoder, relative to the classifier's.
      microbatch: videos, over all devices, whose gradient is computed at a time, so that a large
        batch fits on few devices; it divides `batch`. The step is that of the mean gradient, but
        batch normalisation uses the statistics of a micro-batch. 0 takes all videos together.
      layer_decay: factor of the learning rate from each layer of a transformer to the one before,
        see `Transformer.layer_rates`; 1 for the same rate everywhere.
      drop_path: probability of dropping a residual branch in the last block of a transformer; it
        grows linearly from 0 in the first block (stochastic depth).
      mix: mixup and CutMix.
      smoothing: label smoothing: share of the target that all classes have in equal parts.
      average: decay per step of a moving average of all weights, which is tested beside the weights
        of the last step, as the result "finetune_average"; 0 for none.
    """

    encoder_rate: float = 1.0
    microbatch: int = 0
    layer_decay: float = 1.0
    drop_path: float = 0.0
    mix: Mix = Mix()
    smoothing: float = 0.0
    average: float = 0.0

    task: ClassVar[str] = "finetune"
    frozen: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        check.at_least(0, encoder_rate=self.encoder_rate, microbatch=self.microbatch)
        check.multiple_of("microbatch", self.microbatch, batch=self.batch)
        check.fraction(layer_decay=self.layer_decay, drop_path=self.drop_path)
        check.fraction(smoothing=self.smoothing, average=self.average)
        whole = "microbatch" if self.microbatch else "batch"
        check.multiple_of("mix.group", self.mix.group, **{whole: getattr(self, whole)})

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for layers of an encoder that has none, besides other bad settings."""
        super().check(task)
        encoder = task.model.encoder
        if (self.layer_decay < 1 or self.drop_path) and not isinstance(encoder, Transformer):
            raise ValueError(
                f"layer_decay and drop_path need a transformer, got {type(encoder).__name__}: pass "
                "--config.protocol.layer_decay=1 --config.protocol.drop_path=0"
            )

    def encoder_module(self, encoder: EncoderConfig) -> nn.Module:
        """Return the network that is trained."""
        return encoder.module(self.drop_path) if self.drop_path else encoder.module()
