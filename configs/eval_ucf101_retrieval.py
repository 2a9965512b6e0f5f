"""Nearest neighbours among the training videos, on UCF101, split 1 as papers do.

python -m vrl_jax.main --config=configs/eval_ucf101_retrieval.py --config.init=runs/mine \
    --config.data.root=/path/to/UCF-101 \
    --config.data.annotations=/path/to/ucfTrainTestlist

`--config.protocol` is one of coclr, dualvar.
"""

from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import UCF101
from vrl_jax.data.loader import Loader
from vrl_jax.evaluation.config import Evaluation


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=UCF101(),
            task="retrieval",
            protocol="dualvar",
            splits=(1,),
            loader=Loader(workers=16, threads=1),
        )
    )
