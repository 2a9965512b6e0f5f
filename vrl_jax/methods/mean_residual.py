"""The controls of BOD-VCL: splits without an operator."""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.losses import koopman
from vrl_jax.methods.bod import BOD


@dataclass(frozen=True)
class MeanResidual(BOD):
    """BOD with the temporal mean as static part, and the spread around a trend as dynamic part.

    `ridge` and `delay` serve the forecast and the recorded spectrum; `radius`, `pooling` and
    `stop_filter` do not affect the split.

    Attributes:
      degree: of the polynomial in time that the dynamic part leaves out: 0 is the mean, 2 a
        quadratic trend.
      unit: split unit frames, as the operator sees them; else their length counts.
    """

    degree: int = 0
    unit: bool = False

    def __post_init__(self):
        super().__post_init__()
        check.at_least(0, degree=self.degree)

    def data_warnings(self, data, sampling):
        """Return none: there is no radius."""
        return []

    def _split(self, frames):
        return koopman.mean_residual_split(frames, degree=self.degree, unit=self.unit)

    def _diagnostics(self, parts):
        """Return the diagnostics that need no operator."""
        names = "koopman/static_share", "koopman/dynamic_share"
        return {name: value for name, value in super()._diagnostics(parts).items() if name in names}
