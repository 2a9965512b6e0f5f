"""An evaluation as one typed component."""

from dataclasses import dataclass, field

from vrl_jax import check
from vrl_jax.data.dataset import Splits
from vrl_jax.data.loader import Loader
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation import protocols
from vrl_jax.evaluation.protocols import Change
from vrl_jax.factors.report import FactorConfig
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.probes.suite import ProbeConfig

OFFICIAL = {
    "UCF101": "ucf101",
    "HMDB51": "hmdb51",
    "Diving48": "diving48",
    "SomethingSomethingV2": "ssv2",
    "Kinetics400": "k400",
}  # data set classes that are one of `protocols.SETS`


@dataclass(frozen=True)
class Evaluation:
    """All that decides the numbers of an evaluation, and (`loader` alone) what does not.

    Attributes:
      data: the labelled videos.
      task: "linear", "finetune", "retrieval"; "probe" asks the probes of pretraining, "factors"
        what is appearance and what is motion.
      protocol: "lss", "severe", "ctp", "coclr" or "dualvar", or "own", for
        the last two, cuts clips as the run of `init` did.
      set: which of `protocols.SETS` the data are, where their class does not say it; "" for none.
      splits: official splits to average over; () for the data as they are.
      init: folder of a run, or a file that `vrl_jax.convert` made; "" is `encoder`, untrained.
      step: of the run's checkpoints; -1 takes the newest.
      encoder: the network where there is no `init`; its clips are 10 of 16 frames, as a file's.
      change: what deviates from the protocol.
      label: which of the data's labels; "probe" and "factors" take all.
      untrained: judge the same encoder untrained as well.
      batch: videos judged at a time, over all devices.
      seed: of classifier, order, augmentation and untrained weights.
      log_every: steps between records of training.
      save_every: steps between checkpoints.
      probe: what the task "probe" asks, by its `group`, `center`, `ks`, `knn` and `linear`; of
        retrieval the `ks`, and `neighbours` for the report.
      factors: what the task "factors" asks.
      masks: folder of the test videos' foregrounds for it, see `scuba.load_masks`; rendered
        videos have their own.
      loader: processes and buffers.
    """

    data: Splits
    task: str
    protocol: str
    set: str = ""
    splits: tuple[int, ...] = ()
    init: str = ""
    step: int = -1
    encoder: EncoderConfig = field(default_factory=Tiny)
    change: Change = field(default_factory=Change)
    label: str = "class"
    untrained: bool = True
    batch: int = 8
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    factors: FactorConfig = field(default_factory=FactorConfig)
    masks: str = ""
    loader: Loader = field(default_factory=Loader)

    @property
    def data_set(self) -> str:
        """Which of `protocols.SETS` the data are; "" for none of them."""
        return self.set or OFFICIAL.get(type(self.data).__name__, "")

    def __post_init__(self):
        check.one_of((*protocols.TASKS, "probe", "factors"), task=self.task)
        check.one_of(("", *protocols.SETS), set=self.set)
        check.at_least(1, batch=self.batch, log_every=self.log_every, save_every=self.save_every)
        check.at_least(-1, step=self.step)
        if (self.task in protocols.TASKS) == (self.protocol == "own"):
            raise ValueError(
                "the protocol 'own' is of the tasks 'probe' and 'factors' and of no other, got "
                f"{self.protocol!r} with {self.task!r}"
            )
        own = OFFICIAL.get(type(self.data).__name__, "")
        if own and self.set not in ("", own):
            raise ValueError(
                f"the data are {own}, but set is {self.set!r}: pass --config.set={own}"
            )
        if self.masks and self.task != "factors":
            raise ValueError(f"masks are of the task 'factors', got some with {self.task!r}")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits must be different ones, got {self.splits}")
        if self.splits and not hasattr(self.data, "split"):
            raise ValueError(
                f"{type(self.data).__name__} has no official splits, got splits={self.splits}: "
                "pass --config.splits='()'"
            )
