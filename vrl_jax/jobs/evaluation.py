"""An encoder judged as papers do: `--config=configs/eval_ucf101_finetune.py --config.init=RUN`.

A classifier is trained upon it, or its features are compared, on each official split, and the same
is done for the same encoder untrained. Every one of these has a folder of its own in the workdir;
an interrupted evaluation goes on from the checkpoints there.
"""

import pathlib
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp

from vrl_jax import check, pretrained, protocols, provenance
from vrl_jax.config import Evaluation
from vrl_jax.data.augment import Augment
from vrl_jax.data.crop import Crops
from vrl_jax.data.sample import Sampling
from vrl_jax.data.sources import Source
from vrl_jax.evaluate import results
from vrl_jax.jobs.tasks import TASKS
from vrl_jax.jobs.trial import Changes, Trial
from vrl_jax.pretrained import Pretrained
from vrl_jax.protocols import Recipe, Test
from vrl_jax.report import html
from vrl_jax.train import mesh
from vrl_jax.train.step import key_for

UNTRAINED = "untrained"


class Judgement:
    """An evaluation in its folder: everything is checked on construction, nothing compiled.

    Args:
      evaluation: what is judged and how.
      workdir: gets `results/`, `report.html`, and a folder for each encoder and split.
      quiet: show no progress bar.
      accept_changes: continue what another config, other data or other weights began.

    Raises:
      ValueError: data or weights that are not there, a protocol that has no such task, a batch that
        cannot be split over the devices.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        workdir: pathlib.Path,
        quiet: bool = False,
        accept_changes: bool = False,
    ):
        self._workdir, self._quiet, self._accept = workdir, quiet, accept_changes
        models = {}
        if evaluation.init:
            step = None if evaluation.step < 0 else evaluation.step
            models[evaluation.init] = pretrained.load(evaluation.init, step)
            evaluation = replace(evaluation, encoder=models[evaluation.init].encoder)
        like = models.get(evaluation.init)
        recipe, changes = protocols.changed(_recipe(evaluation, like), evaluation.change)
        if evaluation.untrained or not evaluation.init:
            models[UNTRAINED] = initialize(evaluation, recipe, like.augment if like else Augment())
        self._evaluation = evaluation
        self._trials = {
            init: [
                self._trial(init, model, split, recipe, changes)
                for split in evaluation.splits or (0,)
            ]
            for init, model in models.items()
        }

    def __call__(self) -> bool:
        """Judge everything; return whether the end was reached.

        Raises:
          FloatingPointError: a loss that is not finite.
          VideoError: too many videos that cannot be read.
        """
        found = []
        for trials in self._trials.values():
            by_split = {}
            for trial in trials:
                by_split[trial.split] = trial.run(self._quiet, self._accept)
                if by_split[trial.split] is None:
                    return False
            found += results.average(by_split) if len(trials) > 1 else by_split[trial.split]
        if not jax.process_index():
            provenance.write(self._workdir, self._evaluation)
            results.write(self._workdir / "results", found, trial.test)
            gallery = next(iter(self._trials.values()))[0].folder / "neighbours.npz"
            if gallery.exists():
                shutil.copy(gallery, self._workdir)
            print(f"report: {html.write(self._workdir)}")
        return True

    def _trial(
        self, init: str, model: Pretrained, split: int, recipe: Recipe, changes: Changes
    ) -> Trial:
        evaluation, place = self._evaluation, mesh.make_mesh()
        data = replace(evaluation.data, split=split) if split else evaluation.data
        train, test = data.train(), data.test()
        if evaluation.task in protocols.TASKS:
            check.one_of(tuple(test.classes), label=evaluation.label)
        recipe, changes = unmirrored(recipe, changes, test)
        mesh.check_batch(place, "batch", evaluation.batch)
        if recipe.fit:
            mesh.check_batch(place, "change.batch", recipe.fit.batch)
        folder = UNTRAINED if init == UNTRAINED else "given"
        if split:
            folder = f"{folder}-split{split}"
        workdir = self._workdir / folder
        given = evaluation, model, init, split, train, test, recipe, changes, workdir, place
        return TASKS[evaluation.task](*given)


def initialize(evaluation: Evaluation, recipe: Recipe, augment: Augment) -> Pretrained:
    """Return the encoder as it is before any training, with the given input."""
    test = recipe.test
    clip = jnp.zeros((1, test.sampling.frames, test.size, test.size, 3))
    module = evaluation.encoder.module()
    variables = jax.jit(module.init, static_argnums=2)(
        key_for(evaluation.seed, UNTRAINED, 0), clip, False
    )
    variables = {"batch_stats": {}, **variables}
    return Pretrained(evaluation.encoder, augment, 0, variables, {})


def unmirrored(recipe: Recipe, changes: Changes, source: Source) -> tuple[Recipe, Changes]:
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


def _recipe(evaluation: Evaluation, model: Pretrained | None) -> Recipe:
    if evaluation.task in protocols.TASKS:
        return protocols.recipe(evaluation.protocol, evaluation.task, evaluation.set)
    if model is not None and model.experiment:
        own = model.experiment
        sampling = Sampling(
            own.sampling.frames, own.sampling.stride, own.evaluate.clips, own.sampling.fps
        )
        return Recipe(True, Test(sampling, own.resize, own.augment.size))
    size = model.augment.size if model else Augment().size
    return Recipe(
        True,
        Test(
            Sampling(16, 2, 10),
            (round(size * 8 / 7), round(size * 171 / 112)),
            size,
            Crops(share=7 / 8),
        ),
    )
