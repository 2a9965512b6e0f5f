"""HDC (arXiv 2011.11261): the 10-layer R(2+1)D on Kinetics-400.

python -m vrl_jax.main --config=configs/k400_hdc.py --config.data.root=/path/to/k400

A third party lists 76.2 on UCF101 and 39.8 on HMDB51, fine-tuned, for this backbone. The authors'
settings are not published. The optimiser, the length and the hidden width of the heads are those of
DualVar, so that the two can be compared. Not run to its end here.
"""

from configs import k400_dualvar
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.methods.hdc import HDC


def get_config(arg: str = ""):
    described = k400_dualvar.get_config()
    described.sampling.layout = "independent"
    described.augment = config.describe(
        Augment(
            size=112,
            area=(0.3, 1.0),
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            **k400_dualvar.IMAGENET,
        )
    )
    described.method = config.describe(HDC(hidden=512, layers=2, norm=False))
    described.framework = None
    return described
