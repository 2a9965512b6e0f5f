"""One encoder, judged by one protocol on one split of a data set."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vrl_jax import config, provenance
from vrl_jax.config import Evaluation
from vrl_jax.data import scuba
from vrl_jax.data.augment import fixed_views
from vrl_jax.data.pipeline import failures
from vrl_jax.data.sources import Source, fingerprint
from vrl_jax.data.synthetic import Scenes
from vrl_jax.evaluate import factors, results, retrieval
from vrl_jax.evaluate.features import FeatureBank
from vrl_jax.evaluate.judge import judge
from vrl_jax.evaluate.results import Result
from vrl_jax.jobs.bank import make_bank, over_devices, own_batches
from vrl_jax.jobs.fit import Fitting, as_seen
from vrl_jax.jobs.neighbours import find_neighbours, read_clips
from vrl_jax.pretrained import Pretrained
from vrl_jax.protocols import TASKS, Recipe
from vrl_jax.report import html
from vrl_jax.train.quarantine import Quarantine

Changes = dict[str, tuple[Any, Any]]
LEAST_FRAMES = 5  # of a clip's vectors, that an operator and its forecast can be looked at


@dataclass(frozen=True)
class Trial:
    """What is judged, and where.

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
    train: Source
    test: Source
    recipe: Recipe
    changes: Changes
    folder: pathlib.Path
    place: Mesh

    def run(self, quiet: bool, accept_changes: bool) -> list[Result] | None:
        """Judge, write and return the results; None where training was asked to stop.

        Raises:
          ValueError: the folder holds the checkpoints of another evaluation.
          VideoError: too many videos that cannot be read.
        """
        first = not jax.process_index()
        self.folder.mkdir(parents=True, exist_ok=True)
        if first:
            provenance.write(self.folder, self.evaluation)
        path = self.folder / (
            "quarantine.jsonl" if first else f"quarantine-{jax.process_index()}.jsonl"
        )
        quarantine = Quarantine(path, 0, self.evaluation.loader.max_failed)
        with contextlib.closing(quarantine):
            if self.recipe.fit:
                found = self._classify(quarantine, quiet, accept_changes)
            elif self.evaluation.task == "retrieval":
                found = self._retrieve(quarantine)
            elif self.evaluation.task == "probe":
                found = self._probe(quarantine)
            else:
                found = self._tell_apart(quarantine)
        if found and first:
            results.write(self.folder / "results", found, self.test)
            html.write(self.folder)
        return found

    def _classify(
        self, quarantine: Quarantine, quiet: bool, accept_changes: bool
    ) -> list[Result] | None:
        """Return what a classifier scores after the last step of its training."""
        given = self.evaluation, self.recipe.fit, self.model, self.train, self.folder, self.place
        fitting = Fitting(*given)
        identity = {"config": config.described(self.evaluation), "weights": self.model.weights()}
        state = fitting.run(quarantine, identity, quiet, accept_changes)
        if state is None:
            return None
        classifier = fitting.classifier
        if classifier.frozen:
            require_unchanged(self.model.variables, state.state["frozen"])

        def probabilities(weights, views):
            return jax.nn.softmax(classifier.score(*weights, views))

        bank = self._bank(probabilities, (state.params, state.state), "test", quarantine)
        found = results.classify(self.evaluation.task, bank, self.evaluation.label)
        return [{**self._stamp("class probabilities", test=bank), **found}]

    def _retrieve(self, quarantine: Quarantine) -> list[Result]:
        """Return how often a test video's neighbours have its class, by each centring."""
        label, ks = self.evaluation.label, self.evaluation.probe.ks
        banks = {part: self._features(part, quarantine) for part in ("train", "test")}
        stamp = self._stamp("features", **banks)
        train, read, found = banks["train"].readable(), banks["test"].readable(), []
        share = len(read.features) / len(self.test)  # the unreadable find nothing
        for center in dict.fromkeys((self.recipe.center, "none")):
            given = read.features, read.labels[label], train.features, train.labels[label]
            recall = retrieval.recall(*given, ks=ks, center=center)
            values = {str(k): value * share for k, value in recall.items()}
            protocol = {**stamp["protocol"], "centring": center}
            told = {"name": "retrieval", "label": label, "metric": "recall", "values": values}
            found.append({**stamp, "protocol": protocol, **told})
        if self.evaluation.probe.neighbours and not jax.process_index():
            self._show_neighbours(banks["train"], banks["test"])
        return found

    def _show_neighbours(self, train: FeatureBank, test: FeatureBank) -> None:
        """Write the report's gallery: a few test videos with their nearest training videos."""
        sampling, resize = self.recipe.test.sampling, self.recipe.test.resize
        shown = find_neighbours(
            (self.train, train),
            (self.test, test),
            lambda source, index: read_clips(source, index, sampling, resize),
            count=self.evaluation.probe.neighbours,
            group="",
            center=self.recipe.center,
        )
        np.savez(self.folder / "neighbours.npz", **shown)

    def _probe(self, quarantine: Quarantine) -> list[Result]:
        """Return what the probes of pretraining say."""
        asked = self.evaluation.probe
        test = self._features("test", quarantine)
        train = test if asked.group else self._features("train", quarantine)
        stamp = self._stamp("features", train=train, test=test)
        stamp["protocol"]["centring"] = asked.center
        return judge(train, test, self.test.classes, asked, stamp)

    def _tell_apart(self, quarantine: Quarantine) -> list[Result]:
        """Return what is appearance and what is motion; `factors.npz` has what lies behind it."""
        evaluation, test = self.evaluation, self.test
        encode = self._encoder(self._pooled, self.model.variables)

        def batches(source):
            for rows in self._read(source):
                part = {id(self.train): "train", id(test): "test"}.get(id(source))
                if part:  # masks may be absent, and rendered twins are not of the data set
                    quarantine.take(part, source, failures(rows), 0)
                yield rows

        masks = scuba.masks(evaluation.masks, test) if evaluation.masks else None
        known = isinstance(test, Scenes)
        stamp = self._stamp("features")
        stamp["protocol"]["factors"] = asdict(evaluation.factors)
        found = factors.report(
            encode,
            batches,
            self.train,
            test,
            rows=evaluation.batch,
            hosts=jax.process_count(),
            config=evaluation.factors,
            stamp=stamp,
            frames=self._frames(),
            masks=test.masks() if known else masks,
            twins=test.twins() if known else None,
        )
        if not jax.process_index():
            np.savez_compressed(self.folder / "factors.npz", **found.arrays)
        return [{**result, "skipped": found.skipped} for result in found.results]

    def _features(self, part: str, quarantine: Quarantine) -> FeatureBank:
        return self._bank(self._pooled, self.model.variables, part, quarantine)

    def _pooled(self, variables: Any, views: jax.Array) -> jax.Array:
        return self.model.encoder.module().apply(variables, views, False).clip

    def _frames(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return what makes frame vectors of clips, if there are enough for an operator."""
        encoder, size = self.model.encoder.module(), self.recipe.test.size

        def frames(variables, views):
            return encoder.apply(variables, views, False).frames

        views = jax.ShapeDtypeStruct((1, self.recipe.test.sampling.frames, size, size, 3), float)
        kept = jax.eval_shape(frames, self.model.variables, views).shape[1]
        return self._encoder(frames, self.model.variables) if kept >= LEAST_FRAMES else None

    def _bank(
        self, read: Callable[..., jax.Array], weights: Any, part: str, quarantine: Quarantine
    ) -> FeatureBank:
        """Return `read(weights, views)` of a part's videos, averaged over crops and clips."""
        source = self.test if part == "test" else self.train
        return make_bank(
            self._encoder(read, weights),
            self._read(source),
            source,
            part=part,
            batch=self.evaluation.batch,
            quarantine=quarantine,
        )

    def _read(self, source: Source) -> Iterator[dict[str, Any]]:
        return own_batches(
            source,
            self.recipe.test.sampling,
            self.recipe.test.resize,
            self.evaluation.batch,
            self.evaluation.loader,
        )

    def _encoder(
        self, read: Callable[..., jax.Array], weights: Any
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Compile `read(weights, views)` of clips, averaged over crops: see `over_devices`."""
        test = self.recipe.test
        augment = replace(self.model.augment, size=test.size)

        def encode(weights, clips):
            views = jnp.moveaxis(fixed_views(clips, augment, test.crops), 1, 0)
            return jax.lax.map(lambda crop: read(weights, crop), views).mean(0)

        return over_devices(encode, weights, self.place)

    def _stamp(self, averaged: str, **banks: FeatureBank) -> dict[str, Any]:
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
        }
        if self.recipe.fit:
            fit = self.recipe.fit
            fit = replace(fit, augment=as_seen(fit.augment, model.augment))
            protocol["fit"] = json.loads(config.describe(fit).to_json())
        if evaluation.task in TASKS:
            other = f"{evaluation.set or 'other data'}, which the paper has not"
            protocol["of"] = evaluation.set if self.recipe.published else other
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
                "train": fingerprint(self.train),
                "test": fingerprint(self.test),
            },
            "unreadable": {part: int(bank.unreadable.sum()) for part, bank in banks.items()},
            "commit": provenance.commit(),
        }

    def _split(self) -> str:
        asked = {"probe": self.evaluation.probe, "factors": self.evaluation.factors}
        group = getattr(asked.get(self.evaluation.task), "group", "")
        if group:
            return f"leave one {group} out"
        return f"split {self.split}" if self.split else "train, test"


def require_unchanged(before: Any, after: Any) -> None:
    """Raise `RuntimeError` unless two encoders, parameters and statistics, are the same bits."""
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    if not all(np.array_equal(*map(jax.device_get, pair)) for pair in leaves):
        raise RuntimeError("the frozen encoder changed while the classifier was trained")
