"""The baseline: one embedding a clip, one joint loss (the v- methods of arXiv 2104.14558)."""

from dataclasses import dataclass

from vrl_jax.frameworks.framework import FrameworkConfig
from vrl_jax.methods.method import EncoderConfig, Method, compose
from vrl_jax.types import Slot, View


@dataclass(frozen=True)
class Instance:
    """Instance discrimination: clips of one video attract each other.

    Attributes:
      dim: width of the embedding.
      temperature: of the comparison.
    """

    dim: int = 128
    temperature: float = 0.1

    def build(self, encoder: EncoderConfig, framework: FrameworkConfig, total_steps: int) -> Method:
        """Return the method's functions."""
        return compose(
            encoder=encoder,
            framework=framework,
            heads={"clip": self.dim},
            slots={"clip": Slot(self.dim, self.temperature)},
            read=lambda features: ({"clip": features.clip}, {}),
            project=lambda projected: (projected, {}),
            views=(View(0), View(1)),
            total_steps=total_steps,
        )
