"""An encoder fine-tuned, on UCF101, split 1 as most papers do.

python -m vrl_jax.main --config=configs/eval_ucf101_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/UCF-101 \
    --config.data.annotations=/path/to/ucfTrainTestlist

`--config=configs/eval_ucf101_finetune.py:PAPER` takes another paper's recipe:
lss, severe, ctp, coclr, dualvar, videomae.
VideoMAE has another recipe for UCF101, so that its results here say that they are not in the paper.
"""

from vrl_jax import config
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import UCF101
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.recipes import published_recipe


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=UCF101(),
            protocol=published_recipe(arg or "dualvar", "finetune")("ucf101"),
            splits=(1,),
            loader=Loader(workers=16, threads=1),
        )
    )
