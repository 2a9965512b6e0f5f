"""An attentive probe on a frozen encoder, on Kinetics-400.

python -m vrl_jax.main --config=configs/eval_k400_attentive.py --config.init=runs/mine \
    --config.data.root=/path/to/k400 \
    --config.data.train_list=/path/to/train.csv --config.data.test_list=/path/to/val.csv

`--config=configs/eval_k400_attentive.py:PAPER` takes another paper's recipe: vjepa, vjepa2,
vjepa2_code.
Both papers evaluate on Kinetics-400.
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
            protocol=published_recipe(arg or "vjepa", "attentive")("k400"),
            loader=Loader(workers=16, threads=1),
        )
    )
