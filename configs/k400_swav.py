"""v-SwAV of the large-scale study (arXiv 2104.14558); otherwise as `k400_simclr.py`.

python -m vrl_jax.main --config=configs/k400_swav.py --config.data.root=/path/to/k400

The study reports 61.6 (paper) and 62.6 (its repository) on K400 with a linear probe. Not run to its
end here.
"""

from configs import k400_simclr
from vrl_jax import config
from vrl_jax.frameworks.swav import SwAV


def get_config(arg: str = ""):
    described = k400_simclr.get_config()
    described.framework = config.describe(
        SwAV(
            hidden=2048,
            layers=3,
            prototypes=1000,
            epsilon=0.05,
            iterations=3,
            freeze_epochs=1.0,
            fan_in=True,
        )
    )
    return described
