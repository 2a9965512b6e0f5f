"""DualVar (arXiv 2107.01194).

Its schedule is that of encoders pretrained on Kinetics: those of UCF101 had 100 epochs, with drops
at 30, 60 and 80.
"""

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.protocols.retrieval import Retrieval
from vrl_jax.evaluation.recipes.shared_settings import TORCH_SGD, crop_and_flip, drop_at
from vrl_jax.train.optim import SGD

AUGMENT = crop_and_flip(
    112, crop="plain", jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
)


def _test(stride: int) -> EvalInput:
    sampling = Sampling(16, stride, 10, layout="centred")
    return EvalInput(sampling, (128, 171), 112, Crops(share=112 / 128))


@recipe("ucf101", "hmdb51")
def dualvar_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in DualVar."""
    optim = SGD(0.05, drops=drop_at(150, 50, 100), weight_decay=1e-3, **TORCH_SGD)
    train = TrainInput(Sampling(16, 2, clips=1), (128, 171), AUGMENT)
    return Finetune(_test(2), train, optim, epochs=150.0, batch=16)


@recipe("ucf101")
def dualvar_retrieval(benchmark: str = "") -> Retrieval:
    """Return retrieval as in DualVar."""
    return Retrieval(_test(4), center="each")
