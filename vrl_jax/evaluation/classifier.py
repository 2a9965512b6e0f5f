"""A classifier trained upon an encoder, in a folder that an interrupted run goes on from."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vrl_jax.augment.views import Augment
from vrl_jax.data.dataset import VideoDataset, fingerprint
from vrl_jax.data.loader import failed_videos, train_batches
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.evaluation.protocols import Fit
from vrl_jax.evaluation.supervised_step import (
    Classifier,
    LinearHead,
    init_classifier,
    make_supervised_step,
)
from vrl_jax.pretrained import Pretrained
from vrl_jax.train import loop, provenance, sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.log import Log, NullLog
from vrl_jax.train.loop import MetricsReader, Train
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.step import TrainState
from vrl_jax.train.workdir import Workdir


@dataclass(frozen=True)
class ClassifierTrainer:
    """What is trained, upon what, and where.

    Attributes:
      evaluation: whose seed, label, cadences and loader are taken.
      fit: the recipe.
      model: the encoder, which stays as it is in a linear evaluation.
      videos: to train on.
      folder: gets checkpoints and logs.
      place: the devices.
    """

    evaluation: Evaluation
    fit: Fit
    model: Pretrained
    videos: VideoDataset
    folder: Workdir
    place: Mesh

    @property
    def steps(self) -> int:
        """How many steps there are."""
        clips = self.fit.epochs * self.fit.repeats * len(self.videos)
        return max(1, math.ceil(clips / self.fit.batch))

    @property
    def classifier(self) -> Classifier:
        """What is trained."""
        classes = len(self.videos.classes[self.evaluation.label])
        head = LinearHead(classes, self.fit.dropout, self.fit.normed)
        return Classifier(self.model.encoder.module(), head, self.evaluation.task == "linear")

    def run(
        self, quarantine: Quarantine, identity: dict[str, Any], quiet: bool
    ) -> TrainState | None:
        """Continue from the newest checkpoint; return the last state, None if asked to stop before.

        Args:
          quarantine: where unreadable videos are written down.
          identity: what the checkpoints must have in common with this, beside the videos.
          quiet: show no progress bar.

        Raises:
          Changed: the checkpoints are of something else.
          FloatingPointError: a loss that is not finite.
          VideoError: too many videos that cannot be read.
        """
        fit, evaluation, model = self.fit, self.evaluation, self.model
        classifier, optimizer = self.classifier, fit.optim.build(fit.batch, self.steps)
        train = Train(
            batch=fit.batch,
            steps=self.steps,
            seed=evaluation.seed,
            log_every=evaluation.log_every,
            save_every=evaluation.save_every,
        )
        state = init_classifier(
            classifier, optimizer, model.variables, model.encoder.dim, train.seed, self.place
        )
        identity = {**identity, "data": fingerprint(self.videos)}
        folder = self.folder
        with Checkpoints(folder.checkpoints, 1, identity, before_save=folder.push) as checkpoints:
            if checkpoints.latest() is not None:
                state = checkpoints.restore(state)
            start = int(state.step)
            with (
                self._log(start, quiet) as log,
                contextlib.closing(self._batches(start, quarantine)) as batches,
            ):
                log.say(provenance.version_line())
                log.say(f"{folder.place}: step {start} of {self.steps}")
                rate = fit.optim.schedule(fit.batch, self.steps)
                augment = as_seen(fit.augment, model.augment)
                state = loop.run_loop(
                    state,
                    make_supervised_step(
                        classifier, optimizer, augment, train.seed, self.place, fit.encoder_rate
                    ),
                    batches,
                    config=train,
                    total_steps=self.steps,
                    probe=None,
                    meter=MetricsReader(
                        log, train, fit.repeats * len(self.videos), rate, lambda: len(quarantine)
                    ),
                    checkpoints=checkpoints,
                    log=log,
                )
        return state if int(state.step) == self.steps else None

    def _log(self, start: int, quiet: bool) -> Log | NullLog:
        return (
            NullLog() if jax.process_index() else Log(self.folder.local, start, self.steps, quiet)
        )

    def _batches(self, start: int, quarantine: Quarantine) -> Iterator[dict[str, jax.Array]]:
        """Yield clips and labels from step `start` on, placed on the devices."""
        videos, label = self.videos, self.evaluation.label
        labels = np.array([videos[i].labels[label] for i in range(len(videos))], np.int32)
        rows = train_batches(
            videos,
            self.fit.sampling,
            self.fit.resize,
            batch=self.fit.batch,
            seed=self.evaluation.seed,
            start=start,
            host=jax.process_index(),
            hosts=jax.process_count(),
            loader=self.evaluation.loader,
        )
        with contextlib.closing(rows):
            for step, batch in enumerate(rows, start + 1):
                quarantine.take("train", videos, failed_videos(batch), step)
                given = {"clips": batch["clips"], "labels": labels[batch["index"]]}
                yield {name: sharding.shard_rows(self.place, part) for name, part in given.items()}


def as_seen(augment: Augment, used: Augment) -> Augment:
    """Return an augmentation that ends with the input that an encoder is used to."""
    return replace(
        augment, mean=used.mean, std=used.std, subtract_background=used.subtract_background
    )
