"""Appearance and motion in the features of a frozen encoder, see `vrl_jax.factors`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import jax
import numpy as np

from vrl_jax import atomic_files
from vrl_jax.data.data_loader import failed_videos
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.eval_protocol import EvalInput, RunInput
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.factors import factor_report, scuba
from vrl_jax.factors.factor_report import FactorConfig
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes.probe_suite import check_group
from vrl_jax.probes.result_files import Result
from vrl_jax.train.sharding import any_process

MIN_FRAMES = 5  # frame vectors of a clip that an operator and its forecast need


@dataclass(frozen=True)
class Factors(FactorConfig):
    """Frame order, arrow of time, units, pixel baselines, SCUBA and spectrum, on every label.

    Attributes:
      test: input of the encoder.
      masks: folder of the test videos' foregrounds, see `vrl_jax.factors.scuba`; rendered videos
        have their own.
      published: always "", there is no published recipe.
    """

    test: RunInput = field(default_factory=RunInput)
    masks: str = ""
    published: str = ""

    task: ClassVar[str] = "factors"

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input of the encoder's run."""
        return self.test.input_for(model)

    def adapt(self, dataset: VideoDataset) -> "Factors":
        """Return this protocol: it mirrors nothing."""
        return self

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for an unknown group, or masks that are not there."""
        check_group("protocol.group", self.group, tuple(task.test.classes))
        if self.masks:
            scuba.load_masks(self.masks, task.test)

    def stamp(self, task: EvalTask) -> dict[str, Any]:
        """Return the settings of the report."""
        settings = asdict(self)
        for name in ("test", "masks", "published"):
            del settings[name]
        return {"factors": settings, "masks": self.masks}

    def evaluate(self, task: EvalTask) -> list[Result] | None:
        """Return the results; `factors.npz` has the arrays that they summarise."""
        train, test = task.train, task.test
        failures = {"train": np.zeros(len(train), bool), "test": np.zeros(len(test), bool)}

        def batches(source):
            for rows in task.batches(source):
                if source is train or source is test:  # masks may be absent
                    part = "test" if source is test else "train"
                    task.quarantine.record(part, source, failed_videos(rows), 0)
                    failures[part][[number for number, _ in failed_videos(rows)]] = True
                yield rows

        if self.masks:
            masks = scuba.load_masks(self.masks, test)
        else:
            masks = test.masks() if hasattr(test, "masks") else None
        summary = factor_report.report_factors(
            task.compile(task.pooled, task.model.variables),
            batches,
            train,
            test,
            rows=task.evaluation.batch,
            hosts=jax.process_count(),
            config=self,
            stamp=task.stamp("features"),
            frames=self._frames(task),
            masks=masks,
            twins=test.twins() if hasattr(test, "twins") else None,
        )
        if not jax.process_index():
            atomic_files.write_npz(task.folder / "factors.npz", summary.arrays, compress=True)
        unreadable = {part: int(any_process(flags).sum()) for part, flags in failures.items()}
        for part, source in (("train", train), ("test", test)):
            task.quarantine.check(part, source, unreadable[part])
        extra = {"skipped": summary.skipped, "unreadable": unreadable}
        return [{**result, **extra} for result in summary.results]

    def _frames(self, task: EvalTask) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return the function of clips to frame vectors, if there are enough for an operator."""
        encoder, size = task.model.encoder.module(), task.input.size

        def frames(variables, views):
            return encoder.apply(variables, views, False).frames

        views = jax.ShapeDtypeStruct((1, task.input.sampling.frames, size, size, 3), "float32")
        count = jax.eval_shape(frames, task.model.variables, views).shape[1]
        return task.compile(frames, task.model.variables) if count >= MIN_FRAMES else None
