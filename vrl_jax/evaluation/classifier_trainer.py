"""Training of a classifier on an encoder, resumed from its checkpoints after an interruption."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

from vrl_jax import config
from vrl_jax.augment.mixing import Mix
from vrl_jax.data.video_dataset import fingerprint
from vrl_jax.evaluation.eval_protocol import TrainInput, match_pretrained_input
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.supervised_step import Classifier, init_classifier, make_supervised_step
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import Optimizer
from vrl_jax.train.run_log import Log, NullLog
from vrl_jax.train.train_loop import Train
from vrl_jax.train.train_session import host_batches, run_session
from vrl_jax.train.train_step import TrainState
from vrl_jax.types import Features


@runtime_checkable
class TrainableHead(Protocol):
    """The settings of a classifier and its training, see `ClassifierEval`."""

    train: TrainInput
    optim: Optimizer
    epochs: float
    batch: int
    frozen: bool
    encoder_rate: float
    microbatch: int
    layer_decay: float
    mix: Mix
    smoothing: float
    average: float

    def encoder_module(self, encoder: EncoderConfig) -> nn.Module:
        """Return the network that is trained, or read."""
        ...

    def head(self, classes: int) -> nn.Module:
        """Return the classifier, a module `(inputs, train) -> logits f32[b classes]`."""
        ...

    def head_inputs(self, features: Features) -> Array:
        """Return the inputs of the classifier."""
        ...


@dataclass(frozen=True)
class ClassifierTrainer:
    """Trains a protocol's classifier on an encoder.

    Attributes:
      protocol: head, optimiser and input.
      task: encoder, videos and folder.
    """

    protocol: TrainableHead
    task: EvalTask

    @property
    def steps(self) -> int:
        """Number of training steps."""
        protocol = self.protocol
        clips = protocol.epochs * protocol.train.repeats * len(self.task.train)
        return max(1, math.ceil(clips / protocol.batch))

    @property
    def classifier(self) -> Classifier:
        """Encoder and head as pure functions."""
        protocol, task = self.protocol, self.task
        classes = len(task.train.classes[task.evaluation.label])
        encoder, head = protocol.encoder_module(task.model.encoder), protocol.head(classes)
        return Classifier(encoder, head, protocol.frozen, protocol.head_inputs)

    def run(self) -> TrainState | None:
        """Train from the newest checkpoint; return the last state, None after a signal.

        Raises:
          ConfigMismatch: the checkpoints belong to another evaluation.
          FloatingPointError: a loss that is not finite.
          VideoError: too many videos cannot be read.
        """
        protocol, task = self.protocol, self.task
        evaluation, model, folder = task.evaluation, task.model, task.folder
        classifier, optimizer = self.classifier, protocol.optim.build(protocol.batch, self.steps)
        train = Train(
            batch=protocol.batch,
            steps=self.steps,
            seed=evaluation.seed,
            log_every=evaluation.log_every,
            save_every=evaluation.save_every,
        )
        identity = {
            "config": config.run_identity(evaluation),
            "weights": model.weight_hash(),
            "data": fingerprint(task.train),
            # The outputs of the classifier by name: another list of classes may renumber them.
            "classes": {
                str(number): name
                for number, name in enumerate(task.train.classes[evaluation.label])
            },
        }
        augment = match_pretrained_input(protocol.train.augment, model.augment)
        sampling, size = protocol.train.sampling, augment.size
        views = (2 * sampling.clips, sampling.frames, size, size, 3)
        with Checkpoints(folder.checkpoints, 1, identity, before_save=folder.push) as checkpoints:
            state = run_session(
                lambda: init_classifier(
                    classifier,
                    optimizer,
                    model.variables,
                    views,
                    train.seed,
                    task.mesh,
                    bool(protocol.average),
                ),
                lambda say: make_supervised_step(
                    classifier,
                    optimizer,
                    augment,
                    train.seed,
                    task.mesh,
                    protocol.encoder_rate,
                    protocol.microbatch,
                    layer_rates=self._layer_rates(),
                    strong=protocol.train.strong,
                    mix=protocol.mix,
                    smoothing=protocol.smoothing,
                    average=protocol.average,
                ),
                self._batches,
                workdir=folder,
                checkpoints=checkpoints,
                config=train,
                total_steps=self.steps,
                clips_per_epoch=protocol.train.repeats * len(task.train),
                schedule=protocol.optim.schedule(protocol.batch, self.steps),
                open_log=self._log,
                quarantine=task.quarantine,
            )
        return state if int(state.step) == self.steps else None

    def _layer_rates(self) -> dict[str, float] | None:
        model, decay = self.task.model, self.protocol.layer_decay
        return model.encoder.layer_rates(model.variables["params"], decay) if decay < 1 else None

    def _log(self, start: int) -> Log | NullLog:
        if jax.process_index():
            return NullLog()
        return Log(self.task.folder.local, start, self.steps, self.task.quiet)

    def _batches(self, start: int) -> Iterator[dict[str, jax.Array]]:
        """Yield clips and labels from step `start` on, placed on the devices."""
        protocol, task = self.protocol, self.task
        videos, label = task.train, task.evaluation.label
        labels = np.array([videos[i].labels[label] for i in range(len(videos))], np.int32)
        rows = host_batches(
            videos,
            protocol.train.sampling,
            protocol.train.resize,
            batch=protocol.batch,
            seed=task.evaluation.seed,
            start=start,
            loader=task.evaluation.loader,
            quarantine=task.quarantine,
            part="train",
        )
        with contextlib.closing(rows):
            for row in rows:
                arrays = {"clips": row["clips"], "labels": labels[row["index"]]}
                yield {
                    name: sharding.shard_rows(task.mesh, array) for name, array in arrays.items()
                }
