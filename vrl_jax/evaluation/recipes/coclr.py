"""CoCLR (arXiv 2010.09709).

Known to differ: it scores all windows of a video, here ten evenly spaced ones.
"""

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.protocols.linear import Linear
from vrl_jax.evaluation.protocols.retrieval import Retrieval
from vrl_jax.evaluation.recipes.shared_settings import TORCH_SGD, crop_and_flip, drop_at
from vrl_jax.train.optim import SGD, Adam

AUGMENT = crop_and_flip(
    128, area=(0.2, 1.0), jitter=0.3, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
)
TRAIN = TrainInput(Sampling(32, 1, clips=1), (146, 195), AUGMENT)


def _test(crops: Crops) -> EvalInput:
    return EvalInput(Sampling(32, 1, 10), (146, 195), 128, crops)


@recipe("ucf101", "hmdb51")
def coclr_linear(benchmark: str = "") -> Linear:
    """Return linear evaluation as in CoCLR."""
    optim = SGD(0.1, drops=drop_at(100, 60, 80), weight_decay=1e-3, **TORCH_SGD)
    test = _test(Crops("ten", 128 / 146))
    return Linear(test, TRAIN, optim, epochs=100.0, batch=64, normed=True)


@recipe("ucf101", "hmdb51")
def coclr_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in CoCLR."""
    drops = drop_at(500, 400, 450)
    optim = Adam(1e-3, warmup=0.0, drops=drops, weight_decay=1e-3, decay_all=True)
    test = _test(Crops("ten", 128 / 146))
    return Finetune(test, TRAIN, optim, epochs=500.0, batch=64, encoder_rate=0.1, dropout=0.9)


@recipe("ucf101", "hmdb51")
def coclr_retrieval(benchmark: str = "") -> Retrieval:
    """Return retrieval as in CoCLR."""
    return Retrieval(_test(Crops(share=128 / 146)), center="each")
