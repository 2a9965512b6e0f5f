"""SEVERE (arXiv 2203.14221).

Known to differ: its batch statistics adapt in linear evaluation, here a frozen encoder is frozen;
its linear evaluation on SSv2 has no released code, and it mirrors SSv2.
"""

from dataclasses import replace

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.protocols.linear import Linear
from vrl_jax.evaluation.recipes.shared_settings import crop_and_flip, drop_at
from vrl_jax.train.optim import Adam

AUGMENT = crop_and_flip(
    112, area=(0.08, 1.0), jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2
)
SSV2_AUGMENT = replace(AUGMENT, flip=0.0)


def _test(frames: int) -> EvalInput:
    return EvalInput(Sampling(frames, 1, 10, fps=16.0), (128, 171), 112, Crops(share=112 / 128))


def _train(frames: int, repeats: int) -> TrainInput:
    return TrainInput(Sampling(frames, 1, clips=1, fps=16.0), (128, 171), AUGMENT, repeats)


def _adam(rate: float, *drops: float) -> Adam:
    return Adam(rate, warmup=0.0, drops=drops, drop_factor=0.3, weight_decay=0.0)


@recipe("ucf101", "ssv2", "k400")
def severe_linear(benchmark: str = "") -> Linear:
    """Return linear evaluation as in SEVERE; SSv2 and Kinetics have settings of their own."""
    optim = _adam(0.01, *drop_at(10, 4, 8))
    protocol = Linear(_test(16), _train(16, 10), optim, epochs=10.0, batch=128)
    if benchmark == "ssv2":
        train = replace(protocol.train, augment=SSV2_AUGMENT, repeats=2)
        return replace(protocol, train=train)
    if benchmark == "k400":
        optim = _adam(0.01, *drop_at(40, 10, 20, 30))
        train = replace(protocol.train, repeats=1)
        return replace(protocol, train=train, optim=optim, epochs=40.0, batch=64)
    return protocol


@recipe("ucf101", "ssv2", "k400")
def severe_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in SEVERE; SSv2 has a schedule of its own."""
    optim = _adam(1e-4, *drop_at(16, 6, 10, 14))
    protocol = Finetune(_test(32), _train(32, 10), optim, epochs=16.0, batch=32)
    if benchmark == "ssv2":
        optim = _adam(1e-4, *drop_at(22, 12, 17, 20))
        train = replace(protocol.train, augment=SSV2_AUGMENT, repeats=2)
        return replace(protocol, train=train, optim=optim, epochs=22.0)
    return protocol
