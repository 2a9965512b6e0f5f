"""Losses: functions of arrays that return one number and depend only on JAX."""

from vrl_jax.losses import forecast, koopman
from vrl_jax.losses.concept_losses import (
    concept_alignment,
    local_contrast,
    negative_entropy,
    shared_activations,
)
from vrl_jax.losses.contrastive import info_nce, nt_xent, nt_xent_steps
from vrl_jax.losses.shuffle_ranking import shuffle_rank, shuffle_rank_accuracy
from vrl_jax.losses.similarity import dot_products, negative_cosine, normalize
from vrl_jax.losses.sinkhorn_knopp import sinkhorn, swapped_prediction

__all__ = [
    "concept_alignment",
    "dot_products",
    "forecast",
    "info_nce",
    "negative_entropy",
    "koopman",
    "local_contrast",
    "negative_cosine",
    "normalize",
    "nt_xent",
    "nt_xent_steps",
    "shared_activations",
    "shuffle_rank",
    "shuffle_rank_accuracy",
    "sinkhorn",
    "swapped_prediction",
]
