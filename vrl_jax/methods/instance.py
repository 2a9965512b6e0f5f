"""The baseline: one embedding a clip, one joint loss (the v- methods of arXiv 2104.14558)."""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.encoders.conv import frame_grid
from vrl_jax.frameworks.framework import FrameworkConfig
from vrl_jax.methods.method import EncoderConfig, Method, compose
from vrl_jax.types import Slot, View


@dataclass(frozen=True)
class Instance:
    """Instance discrimination: clips of one video attract each other.

    Attributes:
      dim: width of the embedding.
      temperature: of the comparison.
      grid: what is embedded is the mean over time of this many cells each way of the last feature
        map; 1 is the mean over space, too.
      reversed_negatives: the first view played backwards is a negative: see `compose`.
    """

    dim: int = 128
    temperature: float = 0.1
    grid: int = 1
    reversed_negatives: bool = False

    def __post_init__(self):
        check.at_least(1, dim=self.dim, grid=self.grid)

    def build(self, encoder: EncoderConfig, framework: FrameworkConfig, total_steps: int) -> Method:
        """Return the method's functions."""
        return compose(
            encoder=encoder,
            framework=framework,
            heads={"clip": self.dim},
            slots={"clip": Slot(self.dim, self.temperature)},
            read=lambda features: ({"clip": frame_grid(features, self.grid).mean(1)}, {}),
            project=lambda projected: (projected, {}),
            views=(View(0), View(1)),
            total_steps=total_steps,
            reversed_negatives=("clip",) if self.reversed_negatives else (),
        )
