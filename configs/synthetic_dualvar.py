"""DualVar on rendered videos; otherwise as `synthetic_bod.py`.

python -m vrl_jax.main --config=configs/synthetic_dualvar.py
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.dualvar import DualVar


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(DualVar(dim=64, segment_dim=32))
    return described
