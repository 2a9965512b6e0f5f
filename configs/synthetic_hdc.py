"""HDC on rendered videos; otherwise as `synthetic_bod.py`.

python -m vrl_jax.main --config=configs/synthetic_hdc.py
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.hdc import HDC


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(HDC(dim=64, hidden=128, layers=2))
    described.framework = None
    return described
