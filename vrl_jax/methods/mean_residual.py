"""The control of BOD-VCL: the split without an operator."""

from dataclasses import dataclass

from vrl_jax.losses import koopman
from vrl_jax.methods.bod import BOD


@dataclass(frozen=True)
class MeanResidual(BOD):
    """BOD with the temporal mean as static part, and the spread around it as dynamic part.

    `ridge` serves the forecast and the recorded spectrum; `radius`, `pooling` and `stop_filter` do
    not affect the split.
    """

    def _split(self, frames):
        return koopman.mean_residual_split(frames)

    def _diagnostics(self, parts):
        """Return the diagnostics that need no operator."""
        names = "koopman/static_share", "koopman/dynamic_share"
        return {name: value for name, value in super()._diagnostics(parts).items() if name in names}
