"""The control of `synthetic_bod.py`: temporal mean and spread, and no operator anywhere.

python -m vrl_jax.main --config=configs/synthetic_residual.py
"""

from configs import synthetic_bod


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method.split = "mean-residual"
    described.method.forecast_weight = 0.0  # whose operator all clips share
    return described
