"""An evaluation as one typed component."""

from dataclasses import dataclass, field

from vrl_jax import check
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.video_dataset import Splits
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation.eval_protocol import EvalProtocol, load_recipe
from vrl_jax.evaluation.recipes import list_recipes
from vrl_jax.methods.network import EncoderConfig


def list_benchmarks() -> set[str]:
    """Return the benchmarks that recipes or data sets name."""
    recipes = {name for _, function in list_recipes() for name in function.benchmarks}
    kinds = dataset_lookup.list_datasets().values()
    return recipes | {kind.benchmark for kind in kinds if getattr(kind, "benchmark", "")}


@dataclass(frozen=True)
class Evaluation:
    """All settings that decide the numbers of an evaluation; `loader` does not.

    Attributes:
      data: the labelled videos.
      protocol: how the encoder is evaluated, a component of `vrl_jax.evaluation.protocols`.
      benchmark: name of the data set, such as "ucf101", where its class does not tell it.
      splits: official splits to average over; () for the data as they are.
      init: folder of a run or of `vrl_jax.export`, a file written by `vrl_jax.convert`, or
        "module:name" of a function, see `vrl_jax.encoders.external`; "" is `encoder`, untrained.
      step: checkpoint of the run; -1 takes the newest.
      encoder: the network where there is no `init`.
      label: label that classifiers and retrieval use; probes and factors use all.
      untrained: evaluate the same encoder without training as well; a function has none.
      batch: videos encoded at a time, over all devices.
      seed: of classifier, order, augmentation and untrained weights.
      log_every: steps between records of training.
      save_every: steps between checkpoints.
      loader: processes and buffers.
    """

    data: Splits
    protocol: EvalProtocol
    benchmark: str = ""
    splits: tuple[int, ...] = ()
    init: str = ""
    step: int = -1
    encoder: EncoderConfig = field(default_factory=Tiny)
    label: str = "class"
    untrained: bool = True
    batch: int = 8
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    loader: Loader = field(default_factory=Loader)

    def __post_init__(self):
        check.at_least(1, batch=self.batch, log_every=self.log_every, save_every=self.save_every)
        check.at_least(-1, step=self.step)
        if not isinstance(self.protocol, EvalProtocol):
            raise ValueError(f"protocol must be an EvalProtocol, got {self.protocol!r}")
        if self.benchmark:
            check.one_of(tuple(sorted(list_benchmarks())), benchmark=self.benchmark)
        own = self._own_benchmark()
        if own and self.benchmark not in ("", own):
            raise ValueError(
                f"the data are {own}, but benchmark is {self.benchmark!r}: pass "
                f"--config.benchmark={own}"
            )
        if self.protocol.published:
            load_recipe(self.protocol.published)
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits must differ, got {self.splits}")
        if self.splits and not hasattr(self.data, "split"):
            raise ValueError(
                f"{type(self.data).__name__} has no official splits, got splits={self.splits}: "
                "pass --config.splits='()'"
            )

    def _own_benchmark(self) -> str:
        return getattr(self.data, "benchmark", "")

    @property
    def benchmark_used(self) -> str:
        """Benchmark that the data are; "" for none."""
        return self.benchmark or self._own_benchmark()

    def benchmark_name(self) -> str:
        """Return the benchmark for results, which say where the paper does not evaluate on it."""
        name = self.benchmark_used
        if name in load_recipe(self.protocol.published)[0].benchmarks:
            return name
        return f"{name or 'other data'}, not in the paper"
