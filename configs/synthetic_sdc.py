"""SDC on rendered videos, with 16 concepts of each type; otherwise as `synthetic_bod.py`.

python -m vrl_jax.main --config=configs/synthetic_sdc.py

The local contrast starts after one pass over the videos; the run makes just under five.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.sdc import SDC


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(SDC(dim=64, concepts=16, local_epochs=1.0))
    described.framework = None
    described.sampling.layout = "adjacent"
    return described
