"""Appearance and motion by a fixed filter, with a shared forecast: the quick start.

python -m vrl_jax.main --config=configs/synthetic_detrend.py

The temporal mean of a clip's features and their spread around a quadratic trend have a contrastive
loss each, and one linear operator for all clips forecasts the features. It is `synthetic_bod.py`
without the Koopman split, which this filter equals or exceeds: `docs/split.md`. Its videos are
rendered, with known factors. It takes minutes on two CPU cores. Expect a probe accuracy near 1 on
the static factor and above chance (1/8) on the dynamic factor; `docs/results.md` lists the
measurements.
"""

from dataclasses import asdict

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.mean_residual import MeanResidual


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    settings = asdict(config.build(described.method))
    described.method = config.describe(MeanResidual(**settings, unit=True, degree=2))
    return described
