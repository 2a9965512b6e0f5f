"""SDC (arXiv 2207.12795) on UCF101 split 1: `k400_sdc.py` with 50 concepts, at the size of one GPU.

python -m vrl_jax.main --config=configs/ucf101_sdc.py --config.data.root=/path/to/UCF-101 \
    --config.data.annotations=/path/to/ucfTrainTestlist

300 epochs with 64 videos per step; the learning rate is divided by 10 after 200. The paper's
accuracies could not be recovered. Not run to its end here.
"""

from configs import k400_sdc
from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import UCF101


def get_config(arg: str = ""):
    described = k400_sdc.get_config()
    described.data = config.describe(UCF101(split=1))
    described.method.concepts = 50
    described.optim.drops = (2 / 3,)
    described.train.epochs = 300.0
    described.train.batch = 64
    return described
