"""The probes of pretraining on any labelled data: linear probe, kNN and retrieval."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.eval_protocol import EvalInput, RunInput
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes.probe_suite import ProbeSuite, run_probes
from vrl_jax.probes.result_files import Result


@dataclass(frozen=True)
class Probes(ProbeSuite):
    """Linear probe, kNN and retrieval on every label, in the clips of the encoder's run.

    Attributes:
      test: input of the encoder.
      published: always "", there is no published recipe.
    """

    test: RunInput = field(default_factory=RunInput)
    published: str = ""

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
        test = task.features("test")
        train = test if self.group else task.features("train")
        stamp = task.stamp("features", train=train, test=test)
        return run_probes(train, test, task.test.classes, self, stamp)
