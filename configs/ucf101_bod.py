"""BOD-VCL on SimCLR, R(2+1)D-18 on UCF101 split 1: `k400_bod.py` at the size of one GPU.

python -m vrl_jax.main --config=configs/ucf101_bod.py --config.data.root=/path/to/UCF-101 \
    --config.data.annotations=/path/to/ucfTrainTestlist

200 epochs with 64 videos per step, and as many for the lower level. Not run to its end here, so no
accuracy is promised.
"""

from configs import k400_bod
from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import UCF101


def get_config(arg: str = ""):
    described = k400_bod.get_config()
    described.data = config.describe(UCF101(split=1))
    described.train.batch = 64
    described.train.epochs = 200.0
    return described
