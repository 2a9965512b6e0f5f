"""One encoder evaluated by one protocol on one split of a data set."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from vrl_jax import check
from vrl_jax.augment.clip_views import average_over_crops
from vrl_jax.data.video_dataset import VideoDataset, is_multilabel
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import Deviations, EvalInput, EvalProtocol
from vrl_jax.evaluation.feature_extraction import compile_sharded, extract_bank, host_eval_batches
from vrl_jax.evaluation.result_stamp import (
    describe_data,
    describe_input,
    describe_model,
    stamp_result,
)
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import leakage, result_files
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.result_files import Result
from vrl_jax.report import write_report
from vrl_jax.train import provenance
from vrl_jax.train.checkpoint import list_steps
from vrl_jax.train.quarantine import Quarantine, open_quarantine
from vrl_jax.train.workdir import Workdir
from vrl_jax.types import Features


@dataclass(frozen=True)
class EvalTask:
    """One encoder, one split: what a protocol's `evaluate` is given.

    Attributes:
      evaluation: the settings.
      protocol: how the encoder is evaluated, adapted to the data.
      input: of the encoder at test time.
      deviations: settings that differ from the published recipe: [used here, published].
      model: the encoder.
      init: name of the encoder in results.
      split: official split; 0 where there is none.
      draw: number of the random subset that `train` is; -1 without one.
      train: training videos; the test videos where groups are left out.
      test: test videos.
      folder: gets checkpoints, logs, results and a report.
      mesh: the devices.
      quiet: show no progress bar.
      quarantine: list of unreadable videos; open while `run` runs.
    """

    evaluation: Evaluation
    protocol: EvalProtocol
    input: EvalInput
    deviations: Deviations
    model: Pretrained
    init: str
    split: int
    draw: int
    train: VideoDataset
    test: VideoDataset
    folder: Workdir
    mesh: Mesh
    quiet: bool = False
    quarantine: Quarantine | None = None

    def require_one_class(self, label: str) -> None:
        """Raise `ValueError` if a label is unknown, or may have several classes per video."""
        check.one_of(tuple(self.test.classes), label=label)
        if is_multilabel(self.test, label):
            raise ValueError(
                f"label {label!r} has several classes per video, which only the protocol Probes "
                "evaluates: choose another protocol or --config.label"
            )

    @property
    def name(self) -> str:
        """Split and draw, such as "1" or "1 draw 0", which a mean over them lists."""
        parts = [str(self.split)] * (self.split > 0) + [f"draw {self.draw}"] * (self.draw >= 0)
        return " ".join(parts)

    def run(self) -> list[Result] | None:
        """Evaluate, write and return the results; None if training was interrupted by a signal.

        Raises:
          ConfigMismatch: the folder holds the checkpoints of another evaluation.
          VideoError: too many videos cannot be read.
        """
        self.folder.local.mkdir(parents=True, exist_ok=True)
        start = max(list_steps(self.folder.checkpoints), default=0)
        quarantine = open_quarantine(self.folder.local, start, self.evaluation.loader.max_failed)
        with contextlib.closing(quarantine):
            evaluated = self.protocol.evaluate(replace(self, quarantine=quarantine))
        if evaluated and not jax.process_index():
            provenance.write_provenance(self.folder.local, self.evaluation)
            result_files.write_results(self.folder / "results", evaluated, self.test)
            write_report(self.folder.local)
            self.folder.push()
        return evaluated

    def features(self, part: str) -> FeatureBank:
        """Return the clip features of the videos of a part, "train" or "test"."""
        return self.bank(self.pooled, self.model.variables, part)

    def pooled(self, variables: Any, views: jax.Array) -> jax.Array:
        """Return the clip features f32[b d] of views f32[b t h w 3]."""
        return self.model.encoder.module().apply(variables, views, False).clip

    def feature_shapes(self) -> Features:
        """Return the shapes of the features of one clip; nothing is computed."""
        encoder = self.model.encoder.module()
        return jax.eval_shape(
            lambda variables, views: encoder.apply(variables, views, False),
            self.model.variables,
            jax.ShapeDtypeStruct(self.input.view_shape, "float32"),
        )

    def bank(self, apply: Callable[..., jax.Array], weights: Any, part: str) -> FeatureBank:
        """Return `apply(weights, views)` of a part's videos, averaged over crops and clips."""
        source = self.test if part == "test" else self.train
        return extract_bank(
            self.compile(apply, weights),
            self.batches(source),
            source,
            part=part,
            batch=self.evaluation.batch,
            quarantine=self.quarantine,
        )

    def part_widths(self) -> dict[str, int]:
        """Return the widths of the method's parts by name; empty where none were loaded."""
        return self.model.parts.widths(self.input.view_shape) if self.model.parts else {}

    def part_banks(self, part: str) -> dict[str, FeatureBank]:
        """Return the parts that the method makes of the videos of "train" or "test", by name."""
        parts = self.model.parts
        return leakage.split_bank(self.bank(parts.joined, parts.weights, part), self.part_widths())

    def batches(self, source: VideoDataset) -> Iterator[dict[str, Any]]:
        """Return this host's batches of a data set, in the clips of the protocol."""
        test, evaluation = self.input, self.evaluation
        batches = host_eval_batches(
            source, test.sampling, test.resize, evaluation.batch, evaluation.loader
        )
        part = "test" if source is self.test else "train" if source is self.train else ""
        quiet = self.quiet or not part or jax.process_index() > 0  # masks are read beside videos
        title, total = f"{part} videos", len(source)
        with tqdm(desc=title, total=total, unit="video", mininterval=1, disable=quiet) as progress:
            for rows in batches:
                progress.update(min(evaluation.batch, total - progress.n))
                yield rows

    def compile(
        self, apply: Callable[..., jax.Array], weights: Any
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Compile `apply(weights, views)` of clips, averaged over crops: see `compile_sharded`."""
        test = self.input
        augment = replace(self.model.augment, size=test.size)

        def encode(weights, clips):
            return average_over_crops(
                lambda views: apply(weights, views), clips, augment, test.crops
            )

        return functools.partial(compile_sharded(encode, self.mesh), weights)

    def stamp(self, averaged: str, **banks: FeatureBank) -> dict[str, Any]:
        """Return what every result carries: protocol, encoder and data.

        Args:
          averaged: quantity that is averaged over clips and crops.
          banks: features by part, whose unreadable videos are counted.
        """
        evaluation, protocol = self.evaluation, self.protocol
        settings = {
            "name": _recipe_name(protocol),
            "task": protocol.task,
            "split": self._split_name(),
            **describe_input(self.input, self.model.augment),
            "averaged": averaged,
            **protocol.stamp(self),
        }
        if self.draw >= 0:
            subset = {**asdict(protocol.subset), "draw": self.draw, "videos": len(self.train)}
            settings["subset"] = subset
        if protocol.published:
            settings["of"] = evaluation.benchmark_name()
        if self.deviations:
            settings["changed"] = self.deviations
        return stamp_result(
            settings,
            {**describe_model(self.model), "init": self.init},
            describe_data(evaluation.data, self.test, None if protocol.group else self.train),
            {part: int(bank.unreadable.sum()) for part, bank in banks.items()},
        )

    def _split_name(self) -> str:
        if self.protocol.group:
            return f"leave one {self.protocol.group} out"
        split = self.split or getattr(self.evaluation.data, "split", 0)
        return f"split {split}" if split else "train, test"


def _recipe_name(protocol: EvalProtocol) -> str:
    return (*protocol.published.split(":"), "")[1] or protocol.task
