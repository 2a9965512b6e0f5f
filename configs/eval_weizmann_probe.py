"""Any encoder on the Weizmann actions, tested on persons that its probe was not trained on.

python -m vrl_jax.main --config=configs/eval_weizmann_probe.py --config.init=runs/mine \
    --config.data.root=/path/to/weizmann
"""

from vrl_jax import config
from vrl_jax.data.datasets.video_folders import Weizmann
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.protocols.probes import Probes


def get_config(arg: str = ""):
    return config.describe(
        Evaluation(
            data=Weizmann(frames=16),
            protocol=Probes(group="person"),
            batch=32,
        )
    )
