"""A linear classifier upon a frozen encoder, on Diving48 V2.

python -m vrl_jax.main --config=configs/eval_diving48_linear.py --config.init=runs/mine \
    --config.data.root=/path/to/diving48 \
    --config.data.annotations=/path/to/lists

`--config.protocol` is one of lss, severe, coclr.
None is of a paper that has Diving48, and every result says so.
"""

from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import Diving48
from vrl_jax.data.loader import Loader
from vrl_jax.evaluation.config import Evaluation


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=Diving48(),
            task="linear",
            protocol="severe",
            loader=Loader(workers=16, threads=1),
        )
    )
