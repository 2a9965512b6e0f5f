"""A classifier trained on an encoder: the base of linear, attentive and fine-tuning protocols."""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vrl_jax import check, config
from vrl_jax.augment.mixing import Mix
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.classifier_trainer import ClassifierTrainer
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput, match_pretrained_input
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.supervised_step import AVERAGE
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import result_files
from vrl_jax.probes.classifier_heads import LinearHead
from vrl_jax.probes.result_files import Result
from vrl_jax.train.optim import Optimizer
from vrl_jax.train.sharding import check_batch
from vrl_jax.types import Features


@dataclass(frozen=True)
class ClassifierEval:
    """A classifier trained on an encoder, tested by the mean of its class probabilities.

    Attributes:
      test: input at test time.
      train: input in training.
      optim: optimiser of the classifier, and of the encoder unless it is frozen.
      epochs: passes over `train.repeats` clips of each training video.
      batch: clips per step, over all devices.
      dropout: probability of dropping a feature before the classifier.
      normed: scale features to unit length and batch-normalise them before the classifier.
      published: `module:function[:benchmark]` of the published recipe; "" for none.
      subset: random part of the training videos, for few labels.
    """

    test: EvalInput
    train: TrainInput
    optim: Optimizer
    epochs: float
    batch: int
    dropout: float = 0.0
    normed: bool = False
    published: str = ""
    subset: TrainSubset = TrainSubset()

    task: ClassVar[str] = "classifier"
    frozen: ClassVar[bool] = True
    encoder_rate: ClassVar[float] = 1.0
    microbatch: ClassVar[int] = 0
    layer_decay: ClassVar[float] = 1.0
    mix: ClassVar[Mix] = Mix()
    smoothing: ClassVar[float] = 0.0
    average: ClassVar[float] = 0.0

    def __post_init__(self):
        check.positive(epochs=self.epochs)
        check.at_least(1, batch=self.batch)

    @property
    def group(self) -> str:
        """No groups are left out."""
        return ""

    def encoder_module(self, encoder: EncoderConfig) -> nn.Module:
        """Return the network that is trained, or read."""
        return encoder.module()

    def head(self, classes: int) -> nn.Module:
        """Return the classifier, a module `(inputs, train) -> logits f32[b classes]`."""
        return LinearHead(classes, self.dropout, self.normed)

    def head_inputs(self, features: Features) -> Array:
        """Return what the classifier reads of an encoder's features, by default f32[b d].

        The clips of a video are consecutive. A protocol may join k of them: b / k rows.
        """
        return features.clip

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input at test time."""
        return self.test

    def adapt(self, dataset: VideoDataset) -> "ClassifierEval":
        """Return this protocol without mirror images where they change labels."""
        if dataset.mirror_safe:
            return self
        reject_mirrored_crops(self.test)
        augment = replace(self.train.augment, flip=0.0)
        return replace(self, train=replace(self.train, augment=augment))

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for an unknown label or a batch that the devices cannot share."""
        task.require_one_class(task.evaluation.label)
        check_batch(task.mesh, "protocol.batch", self.batch)
        if self.microbatch:
            check_batch(task.mesh, "protocol.microbatch", self.microbatch)

    def stamp(self, task: EvalTask) -> dict[str, Any]:
        """Return how the classifier is trained."""
        augment = match_pretrained_input(self.train.augment, task.model.augment)
        used = replace(self, train=replace(self.train, augment=augment))
        settings = json.loads(config.describe(used).to_json())
        del settings["test"], settings["published"], settings["subset"]
        return {"fit": settings, "seed": task.evaluation.seed}

    def evaluate(self, task: EvalTask) -> list[Result] | None:
        """Train the classifier; return its accuracies after the last step."""
        trainer = ClassifierTrainer(self, task)
        state = trainer.run()
        if state is None:
            return None
        classifier = trainer.classifier
        if classifier.frozen:
            require_unchanged(task.model.variables, state.state["frozen"])

        def probabilities(weights, views):
            scores = [jax.nn.softmax(classifier.score(*each, views)) for each in weights]
            scores = jnp.concatenate(scores, axis=1)
            return jnp.repeat(scores, len(views) // len(scores), axis=0)  # one row per clip

        weights, names = [(state.params, state.state)], [self.task]
        if self.average:
            averaged = state.state[AVERAGE]
            weights.append((averaged["params"], averaged["state"]))
            names.append(f"{self.task}_{AVERAGE}")
        bank = task.bank(probabilities, weights, "test")
        stamp = task.stamp("class probabilities", test=bank)
        parts = np.split(bank.features, len(names), axis=1)
        return [
            {**stamp, **result_files.top_accuracies(name, each, task.evaluation.label)}
            for name, each in zip(names, (bank._replace(features=x) for x in parts), strict=True)
        ]


def reject_mirrored_crops(test: EvalInput) -> None:
    """Raise `ValueError` where crops are mirrored although mirror images change labels."""
    if test.crops.positions == "ten":
        raise ValueError(
            "protocol.test.crops are mirrored, and a mirror image has another label in this data "
            "set: choose another protocol, or --config.protocol.test.crops.positions=center"
        )


def require_unchanged(before: Any, after: Any) -> None:
    """Raise `RuntimeError` unless two encoders, parameters and statistics, are bitwise equal."""
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    if not all(np.array_equal(*map(jax.device_get, pair)) for pair in leaves):
        raise RuntimeError("the frozen encoder changed while the classifier was trained")
