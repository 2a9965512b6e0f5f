"""The baseline of `synthetic_bod.py`: SimCLR with one joint loss, all else equal.

python -m vrl_jax.main --config=configs/synthetic_simclr.py
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.instance import Instance


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(Instance(dim=64))
    return described
