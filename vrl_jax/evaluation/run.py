"""An encoder judged as papers do: `--config=configs/eval_ucf101_finetune.py --config.init=RUN`.

A classifier is trained upon it, or its features are compared, on each official split, and the same
is done for the same encoder untrained. Every one of these has a folder of its own in the workdir;
an interrupted evaluation goes on from the checkpoints there.
"""

import shutil
from dataclasses import replace

import jax

from vrl_jax import check, pretrained
from vrl_jax.augment.crops import Crops
from vrl_jax.augment.views import Augment
from vrl_jax.data.dataset import Splits, VideoDataset
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.storage import AnyPath
from vrl_jax.evaluation import protocols
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.evaluation.protocols import Recipe, Test
from vrl_jax.evaluation.task import Changes, EvalTask, group_label
from vrl_jax.evaluation.tasks import GALLERY, TASKS
from vrl_jax.factors import scuba
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import results
from vrl_jax.probes.results import Result
from vrl_jax.probes.suite import check_group
from vrl_jax.report import html
from vrl_jax.train import provenance, sharding
from vrl_jax.train.workdir import open_workdir

UNTRAINED = "untrained"


class EvaluationRun:
    """An evaluation in its folder: everything is checked on construction, no video is read.

    Args:
      evaluation: what is judged and how.
      workdir: gets `results/`, `report.html`, and a folder for each encoder and split; may be on
        an object store.
      quiet: show no progress bar.

    Raises:
      ValueError: data or weights that are not there, a protocol that has no such task, a batch that
        cannot be split over the devices, neighbours that there are not so many of.
    """

    def __init__(self, evaluation: Evaluation, workdir: str | AnyPath, quiet: bool = False):
        self._workdir, self._quiet = open_workdir(workdir), quiet
        given = _load(evaluation)
        if given:
            evaluation = replace(evaluation, encoder=given.encoder)
        recipe, changes = protocols.apply_change(_recipe(evaluation, given), evaluation.change)
        models = [(evaluation.init, given)] if given else []
        if evaluation.untrained or not given:
            augment = replace(given.augment if given else Augment(), size=recipe.test.size)
            frames = recipe.test.sampling.frames
            plain = pretrained.init_untrained(evaluation.encoder, augment, frames, evaluation.seed)
            models.append((UNTRAINED, plain))
        self._evaluation = evaluation
        splits = evaluation.splits or (0,)
        self._trials = [
            [self._trial(init, model, split, recipe, changes) for split in splits]
            for init, model in models
        ]

    def __call__(self) -> bool:
        """Judge everything; return whether the end was reached.

        Raises:
          Changed: the folder holds the checkpoints of another evaluation.
          FloatingPointError: a loss that is not finite.
          VideoError: too many videos that cannot be read.
        """
        found = []
        with self._workdir:
            for trials in self._trials:
                by_split = {}
                for trial in trials:
                    by_split[trial.split] = trial.run(self._quiet)
                    if by_split[trial.split] is None:
                        return False
                found += (
                    results.average_splits(by_split) if len(trials) > 1 else by_split[trial.split]
                )
            if not jax.process_index():
                self._tell(found)
        return True

    def plan(self) -> str:
        """Return what would be judged, and how."""
        evaluation, rows = self._evaluation, []
        for trial in (trial for trials in self._trials for trial in trials):
            videos = (
                f"{len(trial.train):,} videos to learn from, {len(trial.test):,} to be judged on"
            )
            rows.append(f"{trial.init or UNTRAINED}, split {trial.split or 'none'}: {videos}")
        test = self._trials[0][0].recipe.test
        clips = (
            f"{test.sampling.clips} clips of {test.sampling.frames} frames at {test.size} pixels"
        )
        changes = self._trials[0][0].changes
        told = [f"{name} is {now}, not {was}" for name, (now, was) in changes.items()]
        return "\n".join(
            [
                provenance.version_line(),
                f"workdir   {self._workdir.place}",
                f"task      {evaluation.task}, protocol {evaluation.protocol}: {clips}",
                f"changes   {'; '.join(told) or 'none'}",
                *[f"trial     {row}" for row in rows],
            ]
        )

    def _tell(self, found: list[Result]) -> None:
        first = self._trials[0][0]
        provenance.write_provenance(self._workdir.local, self._evaluation)
        results.write_results(self._workdir / "results", found, first.test)
        shown = self._workdir / GALLERY
        shown.unlink(missing_ok=True)
        if (first.folder / GALLERY).exists():
            shutil.copy(first.folder / GALLERY, shown)
        report = html.write_report(self._workdir.local)
        print(f"report: {self._workdir.place / report.name}")

    def _trial(
        self, init: str, model: Pretrained, split: int, recipe: Recipe, changes: Changes
    ) -> EvalTask:
        evaluation, place = self._evaluation, sharding.make_mesh()
        data = replace(evaluation.data, split=split) if split else evaluation.data
        test = data.test()
        train = test if group_label(evaluation) else data.train()
        recipe, changes = without_flip(recipe, changes, test)
        check_evaluation(evaluation, train, test)
        check_no_test_leakage(model.experiment and model.experiment.data, data)
        sharding.check_batch(place, "batch", evaluation.batch)
        if recipe.fit:
            sharding.check_batch(place, "change.batch", recipe.fit.batch)
        folder = UNTRAINED if init == UNTRAINED else "given"
        if split:
            folder = f"{folder}-split{split}"
        workdir = self._workdir.part(folder)
        given = evaluation, model, init, split, train, test, recipe, changes, workdir, place
        return TASKS[evaluation.task](*given)


def check_evaluation(evaluation: Evaluation, train: VideoDataset, test: VideoDataset) -> None:
    """Raise `ValueError` where an evaluation asks for labels or neighbours that are not there."""
    labels = tuple(test.classes)
    if evaluation.task in protocols.TASKS:
        check.one_of(labels, label=evaluation.label)
    group, asked = group_label(evaluation), evaluation.probe
    check_group(f"{evaluation.task}.group", group, labels)
    wanted = {"retrieval": {"ks": max(asked.ks)}, "probe": {"ks": max(asked.ks), "knn": asked.knn}}
    for name, count in wanted.get(evaluation.task, {}).items():
        if count > len(train) and not group:
            raise ValueError(
                f"probe.{name} asks for {count} neighbours among {len(train)} training videos: "
                f"pass a smaller --config.probe.{name}"
            )
    if evaluation.masks:
        scuba.load_masks(evaluation.masks, test)


def check_no_test_leakage(seen: Splits | None, data: Splits) -> None:
    """Raise `ValueError` where an encoder saw, in pretraining, test videos: those of another split.

    Args:
      seen: what it was pretrained on, if that is known.
      data: what it is judged on.
    """
    if type(seen) is type(data) and getattr(seen, "split", 0) != getattr(data, "split", 0):
        raise ValueError(
            f"the encoder was pretrained on split {seen.split}, which has test videos of split "
            f"{data.split}: pass --config.splits='({seen.split},)'"
        )


def without_flip(recipe: Recipe, changes: Changes, source: VideoDataset) -> tuple[Recipe, Changes]:
    """Return the recipe without mirror images where they have other labels.

    Raises:
      ValueError: it judges by mirrored crops.
    """
    if source.mirror_safe:
        return recipe, changes
    if recipe.test.crops.places == "ten":
        raise ValueError(
            "this protocol judges mirrored crops, and a mirror image has another label in this "
            "data set: take another protocol"
        )
    if not recipe.fit or not recipe.fit.augment.flip:
        return recipe, changes
    flip = {"flip": (0.0, recipe.fit.augment.flip)}
    augment = replace(recipe.fit.augment, flip=0.0)
    return replace(recipe, fit=replace(recipe.fit, augment=augment)), {**changes, **flip}


def _load(evaluation: Evaluation) -> Pretrained | None:
    if evaluation.init == UNTRAINED:
        raise ValueError(f"init={UNTRAINED!r} is what results call the untrained: move the run")
    if not evaluation.init:
        return None
    return pretrained.load(evaluation.init, None if evaluation.step < 0 else evaluation.step)


def _recipe(evaluation: Evaluation, model: Pretrained | None) -> Recipe:
    if evaluation.task in protocols.TASKS:
        return protocols.published_recipe(evaluation.protocol, evaluation.task, evaluation.data_set)
    if model is not None and model.experiment:
        own = model.experiment
        sampling = Sampling(
            own.sampling.frames, own.sampling.stride, own.evaluate.clips, own.sampling.fps
        )
        return Recipe(Test(sampling, own.resize, own.augment.size))
    size = model.augment.size if model else Augment().size
    return Recipe(
        Test(
            Sampling(16, 2, 10),
            (round(size * 8 / 7), round(size * 171 / 112)),
            size,
            Crops(share=7 / 8),
        ),
    )
