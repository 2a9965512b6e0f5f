"""An encoder fine-tuned, on Kinetics-400.

python -m vrl_jax.main --config=configs/eval_k400_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/k400 \
    --config.data.train_list=/path/to/train.csv --config.data.test_list=/path/to/val.csv

`--config=configs/eval_k400_finetune.py:PAPER` takes another paper's recipe:
lss, severe, ctp, coclr, dualvar, videomae.
Of these papers SEVERE and VideoMAE fine-tune on Kinetics-400; results by the others say so.
"""

from vrl_jax import config
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import Kinetics400
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.recipes import published_recipe


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=Kinetics400(),
            protocol=published_recipe(arg or "severe", "finetune")("k400"),
            loader=Loader(workers=16, threads=1),
        )
    )
