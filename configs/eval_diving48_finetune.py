"""An encoder fine-tuned, on Diving48 V2.

python -m vrl_jax.main --config=configs/eval_diving48_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/diving48 \
    --config.data.annotations=/path/to/lists

`--config=configs/eval_diving48_finetune.py:PAPER` takes another paper's recipe:
lss, severe, ctp, coclr, dualvar, videomae.
None is of a paper that has Diving48, and every result says so.
"""

from vrl_jax import config
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import Diving48
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.recipes import published_recipe


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=Diving48(),
            protocol=published_recipe(arg or "severe", "finetune")("diving48"),
            loader=Loader(workers=16, threads=1),
        )
    )
