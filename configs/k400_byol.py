"""v-BYOL of the large-scale study (arXiv 2104.14558); otherwise as `k400_simclr.py`.

python -m vrl_jax.main --config=configs/k400_byol.py --config.data.root=/path/to/k400

The study's repository reports 67.4 on K400 with a linear probe. Its gradient sums over the two
clips of a video. Not run to its end here.
"""

from configs import k400_simclr
from vrl_jax import config
from vrl_jax.frameworks.byol import BYOL


def get_config(arg: str = ""):
    described = k400_simclr.get_config()
    described.framework = config.describe(
        BYOL(hidden=4096, layers=2, predictor_layers=2, momentum=0.996, sum_pairs=True, fan_in=True)
    )
    described.method.dim = 256
    return described
