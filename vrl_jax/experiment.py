"""A pretraining run as one typed component."""

from dataclasses import dataclass, field

from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Splits
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.methods.base import MethodConfig
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.probes.probe_suite import ProbeConfig
from vrl_jax.train.optim import Optimizer
from vrl_jax.train.train_loop import Train


@dataclass(frozen=True)
class Experiment:
    """All that decides the numbers of a run, and (`loader`, `train.shard_state`) what does not.

    Attributes:
      data: the data set.
      sampling: which frames of a video make a clip.
      resize: height and width that frames are decoded to, before augmentation.
      encoder: the network that is kept.
      framework: how embeddings are compared; None for a method that makes its own comparisons.
      method: what is embedded.
      optim: how the loss is minimised.
      augment: how a clip becomes a view.
      train: how long and how often.
      evaluate: how the result is judged.
      loader: processes and buffers.
      init: what `vrl_jax.pretrained.load` takes, and the encoder starts from; "" starts at random.
        The network and the normalisation of its input replace those of `encoder` and `augment`, of
        which `dtype`, `remat` and `conv` stay.
    """

    data: Splits
    encoder: EncoderConfig
    method: MethodConfig
    optim: Optimizer
    framework: FrameworkConfig | None = None
    sampling: Sampling = field(default_factory=Sampling)
    resize: tuple[int, int] = (128, 171)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    evaluate: ProbeConfig = field(default_factory=ProbeConfig)
    loader: Loader = field(default_factory=Loader)
    init: str = ""

    def __post_init__(self):
        if min(self.resize) < 8:
            raise ValueError(f"resize must be at least 8 pixels each way, got {self.resize}")

    @property
    def framework_name(self) -> str:
        """The framework as results name it."""
        return type(self.framework).__name__ if self.framework else "none"
