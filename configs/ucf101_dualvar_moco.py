"""DualVar on MoCo (arXiv 2107.01194) on UCF101 split 1; otherwise as `ucf101_dualvar.py`.

python -m vrl_jax.main --config=configs/ucf101_dualvar_moco.py \
    --config.data.root=/path/to/UCF-101 --config.data.annotations=/path/to/ucfTrainTestlist

After fine-tuning, the paper reports 78.5 on UCF101 and 47.5 on HMDB51. Not run to its end here.
"""

from configs import ucf101_dualvar
from vrl_jax import config
from vrl_jax.frameworks.moco import MoCo


def get_config(arg: str = ""):
    described = ucf101_dualvar.get_config()
    described.framework = config.describe(
        MoCo(hidden=512, layers=2, norm=False, queue=16384, momentum=0.999, anneal=False)
    )
    described.method.symmetric = False
    described.method.rank_cap = 0.0
    return described
