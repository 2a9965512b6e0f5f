"""Frameworks, which compare embeddings."""

from vrl_jax.frameworks.byol import BYOL
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.frameworks.swav import SwAV

__all__ = ["BYOL", "MoCo", "SimCLR", "SwAV"]
