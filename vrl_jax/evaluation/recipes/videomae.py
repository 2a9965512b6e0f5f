"""VideoMAE (arXiv 2203.12602), end-to-end fine-tuning of ViT-B.

Every number is that of the released code (MCG-NJU/VideoMAE): the scripts `finetune.sh` of ViT-B
with 1600 epochs of pretraining for Kinetics-400 and with 2400 for SSv2, and the defaults of
`run_class_finetuning.py` where they are silent. Both fine-tune with repeated augmentation, 6 videos
on each of 64 GPUs. Rates are given for 256 videos; 5 epochs of warm-up begin, and the cosine ends,
at 1e-6. RandAugment and random erasing are those of `kinetics.py`, mixup and CutMix of `mixup.py`:
one draw for the 6 videos of a GPU, here for 6 consecutive videos on any number of devices. The code
can average weights but the scripts do not.

Known to differ: frames of training clips are 4 apart, where the code spreads 16 over 65. The
classifier starts with a standard deviation of 0.01, there of 2e-5. The encoder keeps its own last
normalisation, where the code drops it and normalises the mean token by a new one; `VideoMAE` has
that as `norm="mean"`. Frames are decoded at 320 x 426 (SSv2: 240 x 320), the shorter sides that the
code's data have, with 4:3 as ours. RandAugment leaves 8-bit frames, as there; crops are antialiased
here. For other data sets the recipe of Kinetics is ours.
"""

from vrl_jax.augment.mixing import Mix
from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.evaluation.recipes.shared_settings import RAND_AUGMENT, crop_and_flip
from vrl_jax.train.optim import AdamW


@recipe("k400", "ssv2")
def videomae_finetune(benchmark: str = "") -> Finetune:
    """Return fine-tuning as in VideoMAE; SSv2 has segments, a schedule and no mirror images."""
    epochs, resize, flip = 75.0, (320, 426), 0.5
    train, test = Sampling(16, 4, 1), Sampling(16, 4, 5)
    if benchmark == "ssv2":
        epochs, resize, flip = 30.0, (240, 320), 0.0
        train = Sampling(16, 1, 1, layout="segments")
        test = Sampling(16, 1, 2, layout="segments", reach_end=False)
    return Finetune(
        test=EvalInput(test, (224, 299), 224, Crops("three")),
        train=TrainInput(
            train,
            resize,
            crop_and_flip(224, area=(0.08, 1.0), flip=flip),
            strong=StrongAugment(views=2, rand=RAND_AUGMENT, erase=0.25),
        ),
        optim=AdamW(
            5e-4, reference_batch=256, warmup=5 / epochs, start=1e-6, end=1e-6, weight_decay=0.05
        ),
        epochs=epochs,
        batch=384,
        layer_decay=0.75,
        drop_path=0.1,
        mix=Mix(mixup=0.8, cutmix=1.0, group=6),
        smoothing=0.1,
    )
