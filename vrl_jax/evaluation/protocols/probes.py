"""The probes of pretraining on any labelled data: linear probe, kNN and retrieval."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.eval_protocol import EvalInput, RunInput
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.pretrained import Pretrained, add_ordered
from vrl_jax.probes import leakage
from vrl_jax.probes.probe_suite import ProbeSuite, run_probes
from vrl_jax.probes.result_files import Result


@dataclass(frozen=True)
class Probes(ProbeSuite):
    """Linear probe, kNN and retrieval on every label, in the clips of the encoder's run.

    Attributes:
      test: input of the encoder.
      parts: also probe the embeddings that the method of the encoder's run makes; see
        `vrl_jax.probes.leakage`.
      segments: also probe the frame vectors in order, averaged over this many segments of a clip.
      published: always "", there is no published recipe.
      subset: random part of the training videos, for few labels.
    """

    test: RunInput = field(default_factory=RunInput)
    parts: bool = False
    segments: int = 0
    published: str = ""
    subset: TrainSubset = TrainSubset()

    task: ClassVar[str] = "probe"

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input of the encoder's run."""
        return self.test.input_for(model)

    def adapt(self, dataset: VideoDataset) -> "Probes":
        """Return this protocol: it mirrors nothing."""
        return self

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for an unknown group, or more neighbours than training videos."""
        self.check_data("protocol", tuple(task.test.classes), len(task.train))

    def stamp(self, task: EvalTask) -> dict[str, Any]:
        """Return the settings of the probes."""
        return {"centring": self.center, "knn": self.knn, "linear": asdict(self.linear)}

    def evaluate(self, task: EvalTask) -> list[Result] | None:
        """Return the results of all probes on all labels."""
        if self.segments:
            task = replace(task, model=add_ordered(task.model, self.segments))
        test = task.features("test")
        train = test if self.group else task.features("train")
        stamp = task.stamp("features", train=train, test=test)
        results = run_probes(train, test, task.test.classes, self, stamp)
        if task.model.parts:
            test = task.part_banks("test")
            train = test if self.group else task.part_banks("train")
            results += leakage.probe_parts(train, test, task.test.classes, self, stamp)
        return results
