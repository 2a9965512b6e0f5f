"""BOD-VCL with both levels, the closest to the paper, otherwise `synthetic_bod.py`.

python -m vrl_jax.main --config=configs/synthetic_bod_paper.py

The method has the defaults of its class: the head's frame vectors are split at radius 0.1, parts
are averaged over time, and the lower level is the held-out forecast with one operator per clip.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.bod import BOD


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(BOD(dim=64))
    return described
