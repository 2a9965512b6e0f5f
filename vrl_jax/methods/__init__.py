"""Methods: the embeddings of a video, and the losses on them."""

from vrl_jax.methods.bod import BOD
from vrl_jax.methods.bod_released import ReleasedBOD
from vrl_jax.methods.dualvar import DualVar
from vrl_jax.methods.hdc import HDC
from vrl_jax.methods.instance import Instance
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.methods.sdc import SDC
from vrl_jax.methods.shared_forecast import SharedForecast

__all__ = [
    "BOD",
    "HDC",
    "SDC",
    "DualVar",
    "Instance",
    "MeanResidual",
    "ReleasedBOD",
    "SharedForecast",
]
