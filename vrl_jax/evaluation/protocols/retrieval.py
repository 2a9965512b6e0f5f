"""Nearest-neighbour retrieval of training videos by test videos."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from vrl_jax import atomic_files, check
from vrl_jax.data.data_loader import eval_row
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.eval_protocol import EvalInput
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.neighbour_gallery import GALLERY, find_neighbours
from vrl_jax.evaluation.protocols.classifier import reject_mirrored_crops
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import retrieval
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.probe_suite import check_neighbours
from vrl_jax.probes.result_files import Result


@dataclass(frozen=True)
class Retrieval:
    """Recall at k: the fraction of test videos with a training video of their class among k.

    Attributes:
      test: input of the encoder.
      center: mean subtracted from the features, see `vrl_jax.probes.retrieval`: "none", "train" or
        "each"; results without centring are listed as well.
      ks: numbers of neighbours.
      neighbours: test videos shown with their neighbours in the report; 0 shows none.
      published: `module:function[:benchmark]` of the published recipe; "" for none.
      subset: random part of the training videos, for few labels.
    """

    test: EvalInput
    center: str = "none"
    ks: tuple[int, ...] = (1, 5, 10, 20, 50)
    neighbours: int = 6
    published: str = ""
    subset: TrainSubset = TrainSubset()

    task: ClassVar[str] = "retrieval"

    def __post_init__(self):
        check.one_of(("none", "train", "each"), center=self.center)
        check.at_least(1, ks=min(self.ks))
        check.at_least(0, neighbours=self.neighbours)

    @property
    def group(self) -> str:
        """No groups are left out."""
        return ""

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input of the encoder."""
        return self.test

    def adapt(self, dataset: VideoDataset) -> "Retrieval":
        """Return this protocol; raise `ValueError` for mirrored crops that change labels."""
        if not dataset.mirror_safe:
            reject_mirrored_crops(self.test)
        return self

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for an unknown label, or more neighbours than training videos."""
        task.require_one_class(task.evaluation.label)
        check_neighbours("protocol", {"ks": max(self.ks)}, len(task.train))

    def stamp(self, task: EvalTask) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": task.evaluation.seed}

    def evaluate(self, task: EvalTask) -> list[Result] | None:
        """Return recall at each k, by each centring."""
        label = task.evaluation.label
        banks = {part: task.features(part) for part in ("train", "test")}
        stamp = task.stamp("features", **banks)
        train, test = banks["train"].readable(), banks["test"].readable()
        recalls = []
        readable = len(test.features) / len(task.test)  # unreadable test videos count as wrong
        for center in dict.fromkeys((self.center, "none")):
            pairs = test.features, test.labels[label], train.features, train.labels[label]
            recall = retrieval.recall_at(*pairs, ks=self.ks, center=center)
            recalls.append(
                {
                    **stamp,
                    "protocol": {**stamp["protocol"], "centring": center},
                    "name": "retrieval",
                    "label": label,
                    "metric": "recall",
                    "values": {str(k): value * readable for k, value in recall.items()},
                }
            )
        gallery = task.folder / GALLERY
        gallery.unlink(missing_ok=True)
        if self.neighbours and not jax.process_index():
            self._write_gallery(task, banks["train"], banks["test"])
        return recalls

    def _write_gallery(self, task: EvalTask, train: FeatureBank, test: FeatureBank) -> None:
        """Write some test videos with their nearest training videos, for the report."""
        loader = task.evaluation.loader

        def read(source, index):
            return eval_row(source, index, self.test.sampling, self.test.resize, loader)["clips"]

        arrays = find_neighbours(
            (task.train, train),
            (task.test, test),
            read,
            count=self.neighbours,
            group="",
            center=self.center,
        )
        atomic_files.write_npz(task.folder / GALLERY, arrays)
