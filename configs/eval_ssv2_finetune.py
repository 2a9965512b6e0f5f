"""An encoder fine-tuned, on Something-Something V2.

python -m vrl_jax.main --config=configs/eval_ssv2_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/ssv2 \
    --config.data.annotations=/path/to/lists

`--config=configs/eval_ssv2_finetune.py:PAPER` takes the recipe of another paper: lss, severe, ctp,
dualvar, videomae. CoCLR tests on mirrored crops, which have other labels here.
The papers of ctp and dualvar have no SSv2, and their results say so.
"""

from vrl_jax import config
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import SomethingSomethingV2
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.recipes import published_recipe


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=SomethingSomethingV2(),
            protocol=published_recipe(arg or "severe", "finetune")("ssv2"),
            loader=Loader(workers=16, threads=1),
        )
    )
