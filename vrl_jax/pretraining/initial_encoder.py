"""The encoder that pretraining starts from."""

from dataclasses import replace
from typing import Any

import jax

from vrl_jax import pretrained
from vrl_jax.evaluation.eval_protocol import match_pretrained_input
from vrl_jax.experiment import Experiment

EXECUTION = ("dtype", "remat", "conv")  # fields: how an encoder is computed, not what


def load_init(experiment: Experiment) -> tuple[Experiment, dict[str, Any] | None]:
    """Return an experiment with the encoder of its `init`, and the variables to start from.

    Without `init` these are the experiment itself and None. The variables are on the host.

    Raises:
      ValueError: `init` cannot be loaded, or has no weights.
    """
    if not experiment.init:
        return experiment, None
    model = pretrained.load(experiment.init)
    if not model.count_parameters():
        raise ValueError(f"init must have weights to train, got the function {experiment.init}")
    execution = {
        name: getattr(experiment.encoder, name)
        for name in EXECUTION
        if hasattr(experiment.encoder, name) and hasattr(model.encoder, name)
    }
    resolved = replace(
        experiment,
        encoder=replace(model.encoder, **execution),
        augment=match_pretrained_input(experiment.augment, model.augment),
    )
    return resolved, jax.device_get(model.variables)
