"""The large-scale study (arXiv 2104.14558); SSv2 clips per video at test time are ours.

Its "8 x 8" frames are every ninth of 30 a second, from the first to the last of 64, and its ten
test clips never reach the end of the video.
"""

from dataclasses import replace

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.protocols.linear import Linear
from vrl_jax.evaluation.recipes.shared_settings import crop_and_flip, drop_at
from vrl_jax.train.optim import SGD

CLIP = Sampling(frames=8, stride=9, fps=30.0, clips=1)
TEST = EvalInput(replace(CLIP, clips=10, reach_end=False), (256, 340), 256, Crops("three"))
TRAIN = TrainInput(CLIP, (320, 426), crop_and_flip(224, crop="scaled"))


@recipe("k400")
def lss_linear(benchmark: str = "") -> Linear:
    """Return linear evaluation as in the study."""
    optim = SGD(4.0, reference_batch=512, warmup=8 / 60, whole_cosine=True, weight_decay=0.0)
    return Linear(TEST, TRAIN, optim, epochs=60.0, batch=512)


@recipe("ucf101", "hmdb51", "ssv2")
def lss_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in the study; SSv2 has a schedule and segments of its own."""
    optim = SGD(0.025, warmup=0.0, drops=drop_at(200, 60, 120, 180), weight_decay=0.0)
    protocol = Finetune(TEST, TRAIN, optim, epochs=200.0, batch=64, dropout=0.8)
    if benchmark != "ssv2":
        return protocol
    segments = Sampling(8, 8, clips=1, layout="segments")
    return replace(
        protocol,
        test=replace(TEST, sampling=segments, crops=Crops()),
        train=replace(
            TRAIN, sampling=segments, augment=crop_and_flip(224, crop="scaled", flip=0.0)
        ),
        optim=SGD(0.12, warmup=0.0, drops=drop_at(22, 14, 18), weight_decay=1e-6),
        epochs=22.0,
        dropout=0.5,
    )
