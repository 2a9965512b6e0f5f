"""An encoder fine-tuned, on HMDB51, split 1 as most papers do.

python -m vrl_jax.main --config=configs/eval_hmdb51_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/hmdb51 \
    --config.data.annotations=/path/to/testTrainMulti_7030_splits

`--config=configs/eval_hmdb51_finetune.py:PAPER` takes another paper's recipe:
lss, severe, ctp, coclr, dualvar, videomae.
SEVERE's paper has no HMDB51, the recipe of videomae is that of Kinetics, and results say so.
"""

from vrl_jax import config
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import HMDB51
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.recipes import published_recipe


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=HMDB51(),
            protocol=published_recipe(arg or "dualvar", "finetune")("hmdb51"),
            splits=(1,),
            loader=Loader(workers=16, threads=1),
        )
    )
