"""SDC on rendered videos, all else as in `synthetic_bod.py`; 16 concepts of each type.

python -m vrl_jax.main --config=configs/synthetic_sdc.py

The local contrast begins after one pass over the videos, the run has not quite five.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.sdc import SDC


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(SDC(dim=64, concepts=16, local_epochs=1.0))
    described.sampling.layout = "adjacent"
    return described
