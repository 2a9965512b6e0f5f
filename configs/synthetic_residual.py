"""The control of `synthetic_bod.py`: temporal mean and spread, without any operator.

python -m vrl_jax.main --config=configs/synthetic_residual.py
"""

from configs import synthetic_bod


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method.split = "mean-residual"
    described.method.forecast_weight = 0.0  # it fits an operator for all clips
    return described
