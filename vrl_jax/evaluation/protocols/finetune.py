"""Fine-tuning: encoder and linear classifier are trained together."""

from dataclasses import dataclass
from typing import ClassVar

from vrl_jax import check
from vrl_jax.evaluation.protocols.classifier import ClassifierEval


@dataclass(frozen=True)
class Finetune(ClassifierEval):
    """Encoder and linear classifier trained together.

    Attributes:
      encoder_rate: learning rate of the encoder, relative to the classifier's.
    """

    encoder_rate: float = 1.0

    task: ClassVar[str] = "finetune"
    frozen: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        check.at_least(0, encoder_rate=self.encoder_rate)
