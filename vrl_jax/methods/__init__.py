"""Methods: which embeddings of a video are compared."""

from vrl_jax.methods.bod import BOD
from vrl_jax.methods.dualvar import DualVar
from vrl_jax.methods.hdc import HDC
from vrl_jax.methods.instance import Instance
from vrl_jax.methods.sdc import SDC

__all__ = ["BOD", "HDC", "SDC", "DualVar", "Instance"]
