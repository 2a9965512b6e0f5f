"""What of an encoder is appearance and what is motion, on rendered videos whose factors are known.

python -m vrl_jax.main --config=configs/eval_factors.py --config.init=runs/mine

Any labelled set does: --data="UCF101 root=/data/ucf annotations=/data/lists". Minutes on two cores.
"""

from vrl_jax import config
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.evaluation.config import Evaluation


def get_config(arg: str = ""):
    return config.describe(Evaluation(data=Synthetic(), task="factors", protocol="own", batch=32))
