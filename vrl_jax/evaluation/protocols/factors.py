"""Appearance and motion in the features of a frozen encoder, see `vrl_jax.factors`."""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vrl_jax import atomic_files
from vrl_jax.data.data_loader import failed_videos
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.evaluation.eval_protocol import EvalInput, RunInput
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.factors import factor_report, scuba
from vrl_jax.factors.label_accuracy import FactorConfig
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.pretrained import Pretrained, add_ordered
from vrl_jax.probes.attentive_probe import average_to_grid
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
      parts: also read the embeddings that the method of the encoder's run makes; with `segments`,
        its frame vectors in order as well.
      layers: also report every feature map of the encoder, averaged over time and space, in
        `layers.json` of the task's folder; all are encoded at once.
      published: always "", there is no published recipe.
      subset: random part of the training videos, for few labels.
    """

    test: RunInput = field(default_factory=RunInput)
    masks: str = ""
    parts: bool = False
    layers: bool = False
    published: str = ""
    subset: TrainSubset = TrainSubset()

    task: ClassVar[str] = "factors"

    def input_for(self, model: Pretrained | None) -> EvalInput:
        """Return the input of the encoder's run."""
        return self.test.input_for(model)

    def adapt(self, dataset: VideoDataset) -> "Factors":
        """Return this protocol: it mirrors nothing."""
        return self

    def check(self, task: EvalTask) -> None:
        """Raise `ValueError` for an unknown group, absent masks, or tokens without layers."""
        if self.attentive.steps and not self.layers:
            raise ValueError("protocol.attentive probes layers: pass --config.protocol.layers=True")
        check_group("protocol.group", self.group, tuple(task.test.classes))
        check_group("protocol.cluster", self.cluster, tuple(task.test.classes))
        for label in task.test.classes:
            task.require_one_class(label)
        if self.masks:
            scuba.load_masks(self.masks, task.test)

    def stamp(self, task: EvalTask) -> dict[str, Any]:
        """Return the settings of the report, without those that only add to it."""
        settings = asdict(self)
        others = ("test", "masks", "parts", "published", "subset")
        added = ["layers", "conflict", "intervals", *["attentive"] * (not self.attentive.steps)]
        for name in (*others, *added):
            del settings[name]
        return {"factors": settings, "masks": self.masks}

    def evaluate(self, task: EvalTask) -> list[Result] | None:
        """Return the results; `factors.npz` has the arrays that they summarise.

        With `layers`, `layers.json` has the results of all layers.
        """
        if self.segments:
            task = replace(task, model=add_ordered(task.model, self.segments))
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
        stamp, shapes = task.stamp("features"), task.feature_shapes()
        stages = dict(
            zip(_name_layers(task.model.encoder, len(shapes.stages)), shapes.stages, strict=True)
        )
        widths = {name: stage.shape[-1] for name, stage in stages.items()} if self.layers else None
        tokens = self._token_shapes(stages) if self.attentive.steps else None
        frames = shapes.frames.shape[1:] if shapes.frames.shape[1] >= MIN_FRAMES else None
        summary = factor_report.report_factors(
            task.compile(self._encoder(task, frames), task.model.variables),
            batches,
            train,
            test,
            rows=task.evaluation.batch,
            hosts=jax.process_count(),
            config=self,
            stamp=stamp,
            frames=frames,
            parts=self._parts(task),
            widths=task.part_widths(),
            masks=masks,
            twins=test.twins() if hasattr(test, "twins") else None,
            layers=widths,
            tokens=tokens,
            quiet=task.quiet or jax.process_index() > 0 or not self.layers,
        )
        if not jax.process_index():
            atomic_files.write_npz(task.folder / "factors.npz", summary.arrays, compress=True)
            if widths:
                videos = {"train": len(train), "test": len(test)}
                layers = {**stamp, "videos": videos, "layers": list(widths)}
                layers |= {"skipped": summary.skipped, "results": summary.layers}
                atomic_files.write_text(task.folder / "layers.json", json.dumps(layers, indent=1))
        unreadable = {part: int(any_process(flags).sum()) for part, flags in failures.items()}
        for part, source in (("train", train), ("test", test)):
            task.quarantine.check(part, source, unreadable[part])
        extra = {"skipped": summary.skipped, "unreadable": unreadable}
        return [{**result, **extra} for result in summary.results]

    def _parts(self, task: EvalTask) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return the function of clips to the method's parts, if they were loaded."""
        parts = task.model.parts
        return parts and task.compile(parts.joined, parts.weights)

    def _token_shapes(
        self, stages: dict[str, jax.ShapeDtypeStruct]
    ) -> dict[str, tuple[int, int, int]]:
        """Return the shape (t, s, d) of the tokens of each feature map, averaged to a grid."""
        average = functools.partial(average_to_grid, grid=self.attentive.grid)
        return {name: jax.eval_shape(average, stage).shape[1:] for name, stage in stages.items()}

    def _encoder(self, task: EvalTask, frames: tuple[int, int] | None) -> Callable[..., jax.Array]:
        """Return the function of variables and views to all features of a clip, side by side.

        These are the means of all feature maps with `layers`, else of the last one; then tokens for
        the attentive probe; then the vectors of `frames`.
        """
        encoder = task.model.encoder.module()

        def encode(variables, views):
            features = encoder.apply(variables, views, False)
            earlier = features.stages[:-1] if self.layers else ()
            parts = [stage.mean((1, 2, 3), dtype=jnp.float32) for stage in earlier]
            parts.append(features.clip)
            if self.attentive.steps:
                parts += [average_to_grid(stage, self.attentive.grid) for stage in features.stages]
            if frames:
                parts.append(features.frames)
            return jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

        return encode


def _name_layers(encoder: EncoderConfig, count: int) -> tuple[str, ...]:
    """Return the names of feature maps: those of the encoder if it names them, else numbers."""
    if hasattr(encoder, "list_layers"):
        return encoder.list_layers()
    return tuple(f"stage {number}" for number in range(count))
