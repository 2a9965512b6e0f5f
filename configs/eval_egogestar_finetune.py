"""An encoder trained with labels on EgoGestAR, to compare with what pretraining learns from it.

python -m vrl_jax.main --config=configs/eval_egogestar_finetune.py --config.init=runs/mine \
    --config.data.root=/path/to/egogestar --config.data.scenes=/path/to/scenes.tsv

Clips, augmentation, optimiser and number of steps are those of `egogestar.py`. Results also have
the same encoder trained from random weights. Takes minutes on two cores.
"""

from dataclasses import replace

from configs import egogestar
from vrl_jax import config
from vrl_jax.data.datasets.factor_benchmarks import EgoGestAR
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput
from vrl_jax.evaluation.protocols.finetune import Finetune


def get_config(arg: str = ""):
    run = config.build(egogestar.get_config("simclr"))
    sampling = replace(run.sampling, clips=1)
    return config.describe(
        Evaluation(
            data=EgoGestAR(),
            label="gesture",
            protocol=Finetune(
                test=EvalInput(sampling, run.resize, run.augment.size),
                train=TrainInput(sampling, run.resize, run.augment),
                optim=run.optim,
                epochs=133.0,  # 300 steps of 32 of the 72 training clips
                batch=run.train.batch,
            ),
        )
    )
