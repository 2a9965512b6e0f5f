"""One encoder, judged by one protocol on one split of a data set."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vrl_jax import config
from vrl_jax.augment.views import average_over_crops
from vrl_jax.data.dataset import VideoDataset, fingerprint
from vrl_jax.evaluation.classifier import as_seen
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.evaluation.extract import extract_bank, over_devices, own_batches
from vrl_jax.evaluation.protocols import TASKS, Recipe
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import results
from vrl_jax.probes.features import FeatureBank
from vrl_jax.probes.results import Result
from vrl_jax.report import html
from vrl_jax.train import provenance
from vrl_jax.train.checkpoint import steps_in
from vrl_jax.train.quarantine import Quarantine, open_quarantine
from vrl_jax.train.workdir import Workdir

Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class EvalTask:
    """What is judged, and where; the tasks in `vrl_jax.evaluation.tasks` say how.

    Attributes:
      evaluation: of which this is a part.
      model: the encoder.
      init: what results call it.
      split: official split; 0 where there is none.
      train: videos to learn from.
      test: videos to be judged on.
      recipe: the protocol, with what is changed in it.
      changes: what that is: for each setting what it is now and what it was.
      folder: of its own: gets checkpoints, logs, results and a report.
      place: the devices.
    """

    evaluation: Evaluation
    model: Pretrained
    init: str
    split: int
    train: VideoDataset
    test: VideoDataset
    recipe: Recipe
    changes: Changes
    folder: Workdir
    place: Mesh

    def run(self, quiet: bool) -> list[Result] | None:
        """Judge, write and return the results; None where training was asked to stop.

        Raises:
          ConfigMismatch: the folder holds the checkpoints of another evaluation.
          VideoError: too many videos that cannot be read.
        """
        first = not jax.process_index()
        self.folder.local.mkdir(parents=True, exist_ok=True)
        start = max(steps_in(self.folder.checkpoints), default=0)
        quarantine = open_quarantine(self.folder.local, start, self.evaluation.loader.max_failed)
        with contextlib.closing(quarantine):
            found = self.judge(quarantine, quiet)
        if found and first:
            provenance.write_provenance(self.folder.local, self.evaluation)
            results.write_results(self.folder / "results", found, self.test)
            html.write_report(self.folder.local)
            self.folder.push()
        return found

    def judge(self, quarantine: Quarantine, quiet: bool) -> list[Result] | None:
        """Return the results of the task; None where training was asked to stop."""
        raise NotImplementedError

    def features(self, part: str, quarantine: Quarantine) -> FeatureBank:
        """Return the pooled features of a part's videos."""
        return self.bank(self.pooled, self.model.variables, part, quarantine)

    def pooled(self, variables: Any, views: jax.Array) -> jax.Array:
        """Return one vector a clip."""
        return self.model.encoder.module().apply(variables, views, False).clip

    def bank(
        self, read: Callable[..., jax.Array], weights: Any, part: str, quarantine: Quarantine
    ) -> FeatureBank:
        """Return `read(weights, views)` of a part's videos, averaged over crops and clips."""
        source = self.test if part == "test" else self.train
        return extract_bank(
            self.encoder(read, weights),
            self.read(source),
            source,
            part=part,
            batch=self.evaluation.batch,
            quarantine=quarantine,
        )

    def read(self, source: VideoDataset) -> Iterator[dict[str, Any]]:
        """Return this host's batches of a source, in the clips of the protocol."""
        return own_batches(
            source,
            self.recipe.test.sampling,
            self.recipe.test.resize,
            self.evaluation.batch,
            self.evaluation.loader,
        )

    def encoder(
        self, read: Callable[..., jax.Array], weights: Any
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Compile `read(weights, views)` of clips, averaged over crops: see `over_devices`."""
        test = self.recipe.test
        augment = replace(self.model.augment, size=test.size)

        def encode(weights, clips):
            return average_over_crops(
                lambda views: read(weights, views), clips, augment, test.crops
            )

        return functools.partial(over_devices(encode, self.place), weights)

    def stamp(self, averaged: str, **banks: FeatureBank) -> dict[str, Any]:
        """Return what every result says of protocol, model and data."""
        evaluation, model, test = self.evaluation, self.model, self.recipe.test
        protocol = {
            "name": evaluation.protocol,
            "task": evaluation.task,
            "split": self._split(),
            "clips": test.sampling.clips,
            "crops": len(test.crops),
            "squares": f"{test.crops.places}, {test.crops.share:g} of the shorter side",
            "frames": test.sampling.frames,
            "stride": test.sampling.stride,
            "fps": test.sampling.fps,
            "layout": test.sampling.layout,
            "decoded": "{} x {}".format(*test.resize),
            "resolution": f"{test.size} x {test.size}",
            "averaged": averaged,
            "input mean": list(model.augment.mean),
            "input std": list(model.augment.std),
            "background": "subtracted" if model.augment.subtract_background else "kept",
        }
        if self.recipe.fit:
            fit = self.recipe.fit
            fit = replace(fit, augment=as_seen(fit.augment, model.augment))
            protocol["fit"] = json.loads(config.describe(fit).to_json())
        if evaluation.task in TASKS:
            other = f"{evaluation.data_set or 'other data'}, which the paper has not"
            protocol["of"] = evaluation.data_set if self.recipe.published else other
            protocol["seed"] = evaluation.seed
        if self.changes:
            protocol["changed"] = {name: list(pair) for name, pair in self.changes.items()}
        return {
            "protocol": protocol,
            "model": {
                "encoder": type(model.encoder).__name__,
                **model.origin,
                "parameters": model.parameters(),
                "weights": model.weights(),
                "init": self.init,
            },
            "data": {
                "set": type(evaluation.data).__name__,
                **self._fingerprints(),
                "left out": getattr(self.test, "left_out", 0),
            },
            "unreadable": {part: int(bank.unreadable.sum()) for part, bank in banks.items()},
            "commit": provenance.source_commit(),
        }

    def _fingerprints(self) -> dict[str, str]:
        parts = {"test": self.test}
        if not group_label(self.evaluation):
            parts["train"] = self.train
        return {part: fingerprint(source) for part, source in parts.items()}

    def _split(self) -> str:
        group = group_label(self.evaluation)
        if group:
            return f"leave one {group} out"
        split = self.split or getattr(self.evaluation.data, "split", 0)
        return f"split {split}" if split else "train, test"


def group_label(evaluation: Evaluation) -> str:
    """Return the label by which an evaluation leaves one group at a time out, if it does."""
    asked = {"probe": evaluation.probe, "factors": evaluation.factors}
    return asked[evaluation.task].group if evaluation.task in asked else ""
