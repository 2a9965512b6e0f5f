"""V-JEPA (arXiv 2404.08471), appendix D.1: an attentive probe on all clips of a video at once.

Frames, stride, random crops, mirror images, batch, epochs, learning rate and weight decay are those
of its table 9, clips and views those of its text. Size, clipping of the gradient and the form of
the probe are those of the released code (facebookresearch/jepa: `vitl16_k400_16x8x3.yaml`,
`vitl16_ssv2_16x2x3.yaml`, `video_classification_frozen/eval.py`, `attentive_pooler.py`).

Paper and code contradict each other. Heads: 12 in the paper; those of the encoder in the code, here
the 16 of ViT-L and ViT-H. Normalisation: after the perceptron in the paper; before it in the code
and here. Clips of SSv2: 1 in the table; 2 in the text, in the code and here. Mirror images: in the
paper and, but for SSv2, here; not in the code. RandAugment and random erasing: in the code only.
Weight decay: constant in the paper and here; lowered to 1e-6 by a cosine in the code.

Known to differ: training clips are drawn independently, where the paper draws one from each of
equal segments; test clips are evenly spaced. Frames of 256 x 341 in training and the initial
weights of the linear classifier are ours.
"""

from vrl_jax.augment.spatial_crops import Crops
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, recipe
from vrl_jax.evaluation.protocols.attentive import Attentive
from vrl_jax.evaluation.recipes.shared_settings import crop_and_flip
from vrl_jax.train.optim import AdamW


@recipe("k400", "ssv2")
def vjepa_attentive(benchmark: str = "") -> Attentive:
    """Return the attentive probe of V-JEPA; SSv2 has fewer clips and no mirror images."""
    clips, flip = (2, 0.0) if benchmark == "ssv2" else (8, 0.5)
    sampling = Sampling(16, 4, clips)
    return Attentive(
        test=EvalInput(sampling, (224, 299), 224, Crops("three")),
        train=TrainInput(sampling, (256, 341), crop_and_flip(224, area=(0.08, 1.0), flip=flip)),
        optim=AdamW(1e-3, warmup=0.0, weight_decay=0.01, clip_norm=1.0),
        epochs=20.0,
        batch=256,
        join_clips=True,
        heads=16,
    )
