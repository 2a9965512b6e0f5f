"""V-JEPA 2 (arXiv 2506.09985), the attentive probe with the augmentation of the released code.

The settings are those of the recipe `vjepa2`, and what it says of its sources holds here, except
that training clips get RandAugment and random erasing as in facebookresearch/vjepa2
(`evals/video_classification_frozen/eval.py` and `utils.py`): "rand-m7-n4-mstd0.5-inc1", and a box
of noise with probability 0.25, drawn for each clip.

Left open: learning rate and weight decay, of which the code trains all combinations and reports the
best; see `vjepa2` for the one that is ours.
"""

from dataclasses import replace

from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.evaluation.eval_protocol import recipe
from vrl_jax.evaluation.protocols.attentive import Attentive
from vrl_jax.evaluation.recipes import vjepa2
from vrl_jax.evaluation.recipes.shared_settings import RAND_AUGMENT


@recipe("k400", "ssv2", "diving48")
def vjepa2_code_attentive(benchmark: str = "") -> Attentive:
    """Return the attentive probe of V-JEPA 2 with RandAugment and random erasing."""
    protocol = vjepa2.vjepa2_attentive(benchmark)
    strong = StrongAugment(rand=RAND_AUGMENT, erase=0.25)
    return replace(protocol, train=replace(protocol.train, strong=strong))
