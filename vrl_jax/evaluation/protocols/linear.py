"""Linear evaluation: a linear classifier on a frozen encoder."""

from dataclasses import dataclass
from typing import ClassVar

from vrl_jax.evaluation.protocols.classifier import ClassifierEval


@dataclass(frozen=True)
class Linear(ClassifierEval):
    """A linear classifier on the clip feature of a frozen encoder."""

    task: ClassVar[str] = "linear"
