"""The control of `synthetic_bod.py`: temporal mean and spread in place of the Koopman split.

python -m vrl_jax.main --config=configs/synthetic_residual.py
"""

from configs import synthetic_bod


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method.split = "mean-residual"
    return described
