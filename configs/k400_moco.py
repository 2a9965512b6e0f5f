"""v-MoCo of the large-scale study (arXiv 2104.14558); otherwise as `k400_simclr.py`.

python -m vrl_jax.main --config=configs/k400_moco.py --config.data.root=/path/to/k400

The study reports 65.8 (paper) and 66.6 (its repository) on K400 with a linear probe. Not run to its
end here. The study computes batch statistics over 8 shuffled clips, this recipe over the global
batch. Its gradient sums over the two clips of a video. The study fills its queue before the first
update; here only the filled part counts.
"""

from configs import k400_simclr
from vrl_jax import config
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.train.optim import SGD


def get_config(arg: str = ""):
    described = k400_simclr.get_config()
    described.framework = config.describe(
        MoCo(
            hidden=2048,
            layers=3,
            norm=False,
            queue=65536,
            momentum=0.994,
            sum_pairs=True,
            fan_in=True,
        )
    )
    described.optim = config.describe(
        SGD(
            learning_rate=0.4,
            reference_batch=512,
            start=0.008,
            warmup=35 / 200,
            whole_cosine=True,
            weight_decay=1e-4,
        )
    )
    return described
