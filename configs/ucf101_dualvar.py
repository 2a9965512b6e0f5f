"""DualVar on SimCLR (arXiv 2107.01194) on UCF101 split 1; otherwise as `k400_dualvar.py`.

python -m vrl_jax.main --config=configs/ucf101_dualvar.py --config.data.root=/path/to/UCF-101 \
    --config.data.annotations=/path/to/ucfTrainTestlist

After fine-tuning, the paper reports 79.0 on UCF101 and 45.4 on HMDB51. Not run to its end here.
"""

from configs import k400_dualvar
from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import UCF101


def get_config(arg: str = ""):
    described = k400_dualvar.get_config()
    described.data = config.describe(UCF101(split=1))
    return described
