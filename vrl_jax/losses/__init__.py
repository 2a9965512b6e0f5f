"""Losses: arrays in, one number out. Each needs JAX alone and no config."""

from vrl_jax.losses import koopman
from vrl_jax.losses.contrastive import info_nce, nt_xent
from vrl_jax.losses.similarity import negative_cosine, normalize

__all__ = ["info_nce", "koopman", "negative_cosine", "normalize", "nt_xent"]
