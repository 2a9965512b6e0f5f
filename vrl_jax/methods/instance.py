"""Instance discrimination of clips, the baseline (the v- methods of arXiv 2104.14558)."""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.encoders.layers import pool_to_grid
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.methods.base import Method
from vrl_jax.methods.compose import append_reversed, compose, keep_views
from vrl_jax.methods.network import EncoderConfig, attach_heads
from vrl_jax.types import Slot, TrainLength, View


@dataclass(frozen=True)
class Instance:
    """Instance discrimination: clips of one video attract each other.

    Attributes:
      dim: width of the embedding.
      temperature: temperature of the comparison.
      clips: clips of a video, rho in the large-scale study; all ordered pairs of them are compared.
        1 compares two views of one clip.
      grid: cells per side of the last feature map that are embedded, averaged over time; 1
        averages over space as well.
      reversed_negatives: the first view played backwards is a negative: it has the same appearance
        and a different motion.
    """

    dim: int = 128
    temperature: float = 0.1
    clips: int = 2
    grid: int = 1
    reversed_negatives: bool = False

    def __post_init__(self):
        check.at_least(1, dim=self.dim, grid=self.grid, clips=self.clips)

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions."""
        views = tuple(View(i) for i in range(self.clips)) if self.clips > 1 else (View(0), View(0))
        negatives = (len(views),) if self.reversed_negatives else ()

        def read(features):
            return {"clip": pool_to_grid(features, self.grid).mean(-2)}, {}

        return compose(
            network=attach_heads(encoder, framework, {"clip": self.dim}, read),
            framework=framework,
            views=views,
            slots={"clip": Slot(self.dim, self.temperature, negatives=negatives)},
            project=lambda outputs: (outputs.projected, {}),
            horizon=horizon,
            prepare=append_reversed if self.reversed_negatives else keep_views,
        )
