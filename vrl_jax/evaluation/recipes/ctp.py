"""CtP and tubelet contrast (arXiv 2105.02545).

Known to differ: it trains on frames of three sizes with a faint colour jitter, draws a smaller
initial classifier, and centres test clips in ten equal parts of the video.
"""

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.recipes.shared_settings import TORCH_SGD, crop_and_flip, drop_at
from vrl_jax.train.optim import SGD


@recipe("ucf101", "hmdb51")
def ctp_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in CtP."""
    return Finetune(
        test=EvalInput(Sampling(16, 2, 10), (128, 171), 112, Crops(share=112 / 128)),
        train=TrainInput(
            Sampling(16, 2, clips=1), (128, 171), crop_and_flip(112, crop="plain", flip=0.35)
        ),
        optim=SGD(
            0.01, drops=drop_at(150, 60, 120), weight_decay=5e-4, clip_norm=40.0, **TORCH_SGD
        ),
        epochs=150.0,
        batch=32,
        dropout=0.5,
    )
