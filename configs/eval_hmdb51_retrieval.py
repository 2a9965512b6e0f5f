"""Nearest neighbours among the training videos, on HMDB51, split 1 as papers do.

python -m vrl_jax.main --config=configs/eval_hmdb51_retrieval.py --config.init=runs/mine \
    --config.data.root=/path/to/hmdb51 \
    --config.data.annotations=/path/to/testTrainMulti_7030_splits

`--config.protocol` is one of coclr, dualvar.
DualVar's paper has no retrieval on HMDB51, and its results say so.
"""

from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import HMDB51
from vrl_jax.data.loader import Loader
from vrl_jax.evaluation.config import Evaluation


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=HMDB51(),
            task="retrieval",
            protocol="coclr",
            splits=(1,),
            loader=Loader(workers=16, threads=1),
        )
    )
