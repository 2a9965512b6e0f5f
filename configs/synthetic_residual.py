"""The control of `synthetic_bod.py`: temporal mean and spread, without any operator.

python -m vrl_jax.main --config=configs/synthetic_residual.py
"""

from dataclasses import asdict

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.mean_residual import MeanResidual


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(MeanResidual(**asdict(config.build(described.method))))
    described.method.forecast_weight = 0.0  # it fits an operator for all clips
    return described
