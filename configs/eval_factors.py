"""Appearance and motion in the features of an encoder, on rendered videos with known factors.

python -m vrl_jax.main --config=configs/eval_factors.py --config.init=runs/mine

Any labelled set works: --data="UCF101 root=/data/ucf annotations=/data/lists". Takes minutes on two
cores.
"""

from vrl_jax import config
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.protocols.factors import Factors


def get_config(arg: str = ""):
    return config.describe(Evaluation(data=Synthetic(), protocol=Factors(), batch=32))
