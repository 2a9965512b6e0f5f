"""What is asked of an encoder: a classifier, neighbours, probes, what is static and dynamic."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from vrl_jax import config, files
from vrl_jax.data.datasets.synthetic import Scenes
from vrl_jax.data.loader import eval_row, failed_videos
from vrl_jax.evaluation.classifier import ClassifierTrainer
from vrl_jax.evaluation.gallery import find_neighbours
from vrl_jax.evaluation.task import EvalTask
from vrl_jax.factors import report, scuba
from vrl_jax.probes import results, retrieval
from vrl_jax.probes.features import FeatureBank
from vrl_jax.probes.results import Result
from vrl_jax.probes.suite import run_probes
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.sharding import any_process

GALLERY = "neighbours.npz"
LEAST_FRAMES = 5  # of a clip's vectors, that an operator and its forecast can be looked at


class ClassifierEval(EvalTask):
    """A classifier is trained upon the encoder, which is frozen in the task "linear"."""

    def judge(self, quarantine: Quarantine, quiet: bool) -> list[Result] | None:
        """Return what a classifier scores after the last step of its training."""
        given = self.evaluation, self.recipe.fit, self.model, self.train, self.folder, self.place
        fitting = ClassifierTrainer(*given)
        identity = {"config": config.run_identity(self.evaluation), "weights": self.model.weights()}
        state = fitting.run(quarantine, identity, quiet)
        if state is None:
            return None
        classifier = fitting.classifier
        if classifier.frozen:
            require_unchanged(self.model.variables, state.state["frozen"])

        def probabilities(weights, views):
            return jax.nn.softmax(classifier.score(*weights, views))

        bank = self.bank(probabilities, (state.params, state.state), "test", quarantine)
        found = results.top_accuracies(self.evaluation.task, bank, self.evaluation.label)
        return [{**self.stamp("class probabilities", test=bank), **found}]


class RetrievalEval(EvalTask):
    """How often do a test video's nearest training videos have its class?"""

    def judge(self, quarantine: Quarantine, quiet: bool) -> list[Result] | None:
        """Return how often a test video's neighbours have its class, by each centring."""
        label, ks = self.evaluation.label, self.evaluation.probe.ks
        banks = {part: self.features(part, quarantine) for part in ("train", "test")}
        stamp = self.stamp("features", **banks)
        train, read, found = banks["train"].readable(), banks["test"].readable(), []
        share = len(read.features) / len(self.test)  # the unreadable find nothing
        for center in dict.fromkeys((self.recipe.center, "none")):
            given = read.features, read.labels[label], train.features, train.labels[label]
            recall = retrieval.recall_at(*given, ks=ks, center=center)
            values = {str(k): value * share for k, value in recall.items()}
            protocol = {**stamp["protocol"], "centring": center}
            told = {"name": "retrieval", "label": label, "metric": "recall", "values": values}
            found.append({**stamp, "protocol": protocol, **told})
        gallery = self.folder / GALLERY
        gallery.unlink(missing_ok=True)
        if self.evaluation.probe.neighbours and not jax.process_index():
            self._show_neighbours(banks["train"], banks["test"])
        return found

    def _show_neighbours(self, train: FeatureBank, test: FeatureBank) -> None:
        """Write the report's gallery: a few test videos with their nearest training videos."""
        seen, loader = self.recipe.test, self.evaluation.loader

        def read(source, index):
            return eval_row(source, index, seen.sampling, seen.resize, loader)["clips"]

        shown = find_neighbours(
            (self.train, train),
            (self.test, test),
            read,
            count=self.evaluation.probe.neighbours,
            group="",
            center=self.recipe.center,
        )
        files.write_npz(self.folder / GALLERY, shown)


class ProbeEval(EvalTask):
    """The probes that pretraining asks."""

    def judge(self, quarantine: Quarantine, quiet: bool) -> list[Result] | None:
        """Return what the probes of pretraining say."""
        asked = self.evaluation.probe
        test = self.features("test", quarantine)
        train = test if asked.group else self.features("train", quarantine)
        stamp = self.stamp("features", train=train, test=test)
        stamp["protocol"] |= {
            "centring": asked.center,
            "knn": asked.knn,
            "linear": asdict(asked.linear),
        }
        return run_probes(train, test, self.test.classes, asked, stamp)


class FactorEval(EvalTask):
    """What of the features is appearance and what is motion."""

    def judge(self, quarantine: Quarantine, quiet: bool) -> list[Result] | None:
        """Return what is appearance and what is motion; `factors.npz` has what lies behind it."""
        evaluation, test = self.evaluation, self.test
        encode = self.encoder(self.pooled, self.model.variables)
        lost = {"train": np.zeros(len(self.train), bool), "test": np.zeros(len(test), bool)}

        def batches(source):
            for rows in self.read(source):
                if source is self.train or source is test:  # masks may be absent
                    part = "test" if source is test else "train"
                    quarantine.take(part, source, failed_videos(rows), 0)
                    lost[part][[number for number, _ in failed_videos(rows)]] = True
                yield rows

        masks = scuba.load_masks(evaluation.masks, test) if evaluation.masks else None
        known = isinstance(test, Scenes)
        stamp = self.stamp("features")
        stamp["protocol"] |= {"factors": asdict(evaluation.factors), "masks": evaluation.masks}
        found = report.report_factors(
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
            files.write_npz(self.folder / "factors.npz", found.arrays, compress=True)
        unreadable = {part: int(any_process(flags).sum()) for part, flags in lost.items()}
        for part, source in (("train", self.train), ("test", test)):
            quarantine.check(part, source, unreadable[part])
        told = {"skipped": found.skipped, "unreadable": unreadable}
        return [{**result, **told} for result in found.results]

    def _frames(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return what makes frame vectors of clips, if there are enough for an operator."""
        encoder, size = self.model.encoder.module(), self.recipe.test.size

        def frames(variables, views):
            return encoder.apply(variables, views, False).frames

        views = jax.ShapeDtypeStruct((1, self.recipe.test.sampling.frames, size, size, 3), float)
        kept = jax.eval_shape(frames, self.model.variables, views).shape[1]
        return self.encoder(frames, self.model.variables) if kept >= LEAST_FRAMES else None


TASKS = {
    "linear": ClassifierEval,
    "finetune": ClassifierEval,
    "retrieval": RetrievalEval,
    "probe": ProbeEval,
    "factors": FactorEval,
}


def require_unchanged(before: Any, after: Any) -> None:
    """Raise `RuntimeError` unless two encoders, parameters and statistics, are the same bits."""
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    if not all(np.array_equal(*map(jax.device_get, pair)) for pair in leaves):
        raise RuntimeError("the frozen encoder changed while the classifier was trained")
