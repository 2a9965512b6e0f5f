"""An evaluation in its folder: `--config=configs/eval_ucf101_finetune.py --config.init=RUN`.

The encoder is evaluated on each official split, and the same encoder without training as well. Each
of these tasks has its own folder in the workdir, from whose checkpoints an interrupted evaluation
continues.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from vrl_jax import config, pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.datasets.class_names import warn_about_untrained
from vrl_jax.data.datasets.mixture import Mixture
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video_dataset import Splits, VideoDataset, check_disjoint
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import EvalProtocol, find_deviations
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.neighbour_gallery import GALLERY
from vrl_jax.evaluation.train_subset import TrainSubset
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import result_files
from vrl_jax.probes.result_files import Result
from vrl_jax.report import write_report
from vrl_jax.train import provenance, sharding
from vrl_jax.train.workdir import open_workdir

UNTRAINED = "untrained"


class OpenSplit(NamedTuple):
    """The videos of a split, which all encoders and draws share.

    Attributes:
      number: of the official split; 0 where there is none.
      data: the data set.
      protocol: the protocol, adapted to the videos.
      train: training videos; the test videos where groups are left out.
      test: test videos.
    """

    number: int
    data: Splits
    protocol: EvalProtocol
    train: VideoDataset
    test: VideoDataset


def identify_results(stamp: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return protocol, encoder, data and settings of results as JSON, without what changes none.

    That is `loader`, and the path of the encoder, which has several spellings.

    Args:
      stamp: of the results, see `stamp_result`.
      settings: of the evaluation, as in `config.json`.
    """
    settings = {key: value for key, value in settings.items() if key not in ("init", "loader")}
    model = {key: value for key, value in stamp["model"].items() if key != "init"}
    parts = {"protocol": stamp["protocol"], "model": model, "data": stamp["data"]}
    return json.loads(json.dumps({**parts, "settings": settings}))


class EvaluationRun:
    """An evaluation in its folder: everything is checked on construction, no video is read.

    Args:
      evaluation: the settings.
      workdir: gets `results/`, `report.html`, and a folder per encoder and split; may be on an
        object store.
      quiet: show no progress bar.

    Raises:
      ValueError: missing data or weights, a batch that the devices cannot share, or settings that
        the data do not allow.
    """

    def __init__(self, evaluation: Evaluation, workdir: str | AnyPath, quiet: bool = False):
        self._workdir, self._quiet = open_workdir(workdir), quiet
        trained = _load_encoder(evaluation)
        if trained:
            evaluation = replace(evaluation, encoder=trained.encoder)
        models = [(evaluation.init, trained)] if trained else []
        self._input = test = evaluation.protocol.input_for(trained)
        if not trained or (evaluation.untrained and trained.count_parameters()):
            augment = replace(trained.augment if trained else Augment(), size=test.size)
            frames, seed = test.sampling.frames, evaluation.seed
            plain = pretrained.init_untrained(evaluation.encoder, augment, frames, seed)
            models.append((UNTRAINED, plain))
        self._evaluation = evaluation
        subset = getattr(evaluation.protocol, "subset", TrainSubset())
        draws = range(subset.draws) if subset else (-1,)
        splits = [self._open_split(number) for number in evaluation.splits or (0,)]
        self._tasks = [
            [self._task(init, model, split, draw) for split in splits for draw in draws]
            for init, model in models
        ]

    def __call__(self) -> bool:
        """Run every task; return whether all were finished.

        Raises:
          ConfigMismatch: the folder holds the checkpoints of another evaluation.
          FloatingPointError: a loss that is not finite.
          VideoError: too many videos cannot be read.
        """
        all_results = []
        with self._workdir:
            for tasks in self._tasks:
                by_name = {}
                for task in tasks:
                    by_name[task.name] = results = task.run()
                    if results is None:
                        return False
                all_results += result_files.average_splits(by_name) if len(tasks) > 1 else results
            if not jax.process_index():
                self._write(all_results)
        return True

    def identity(self) -> dict[str, Any]:
        """Return what the results of the first task are identified by."""
        stamp = self._tasks[0][0].stamp("features")
        return identify_results(stamp, config.run_identity(self._evaluation))

    def plan(self) -> str:
        """Return the tasks and their settings, for `--dry_run`."""
        evaluation, first = self._evaluation, self._tasks[0][0]
        rows = [
            f"{task.init or UNTRAINED}, split {task.name or 'none'}: {len(task.train):,} training "
            f"and {len(task.test):,} test videos"
            for tasks in self._tasks
            for task in tasks
        ]
        test, protocol = first.input, first.protocol
        clips = f"{test.sampling.clips} clips of {test.sampling.frames} frames, {test.size} pixels"
        changes = [
            f"{name} is {used}, published {published}"
            for name, (used, published) in first.deviations.items()
        ]
        return "\n".join(
            [
                provenance.version_line(),
                f"workdir   {self._workdir.path}",
                f"protocol  {evaluation.protocol.task}, {protocol.published or 'own'}: {clips}",
                f"changes   {'; '.join(changes) or 'none'}",
                *[f"task      {row}" for row in rows],
            ]
        )

    def _write(self, all_results: list[Result]) -> None:
        first = self._tasks[0][0]
        provenance.write_provenance(self._workdir.local, self._evaluation)
        result_files.write_results(self._workdir / "results", all_results, first.test)
        gallery = self._workdir / GALLERY
        gallery.unlink(missing_ok=True)
        if (first.folder / GALLERY).exists():
            shutil.copy(first.folder / GALLERY, gallery)
        report = write_report(self._workdir.local)
        print(f"report: {self._workdir.path / report.name}")

    def _open_split(self, number: int) -> OpenSplit:
        evaluation = self._evaluation
        data = replace(evaluation.data, split=number) if number else evaluation.data
        test = data.test()
        protocol = evaluation.protocol.adapt(test)
        train = test if protocol.group else data.train()
        if not test.classes or not train.classes:
            part = "training" if test.classes else "test"
            raise ValueError(f"an evaluation needs labels, but the {part} videos have none")
        if not (protocol.group or jax.process_index()):
            warn_about_untrained(train, test, getattr(protocol, "cluster", ""))
        return OpenSplit(number, data, protocol, train, test)

    def _task(self, init: str, model: Pretrained, split: OpenSplit, draw: int) -> EvalTask:
        evaluation, mesh = self._evaluation, sharding.make_mesh()
        number, data, protocol, train, test = split
        if draw >= 0:
            if protocol.group:
                raise ValueError(
                    f"protocol.subset needs training videos, but protocol.group={protocol.group!r} "
                    "leaves groups of the test videos out"
                )
            train = protocol.subset.draw(train, evaluation.label, draw)
        folder = UNTRAINED if init == UNTRAINED else "trained"
        folder += f"-split{number}" * (number > 0) + f"-draw{draw}" * (draw >= 0)
        task = EvalTask(
            evaluation=evaluation,
            protocol=protocol,
            input=self._input,
            deviations=find_deviations(protocol, evaluation.benchmark_used),
            model=model,
            init=init,
            split=number,
            draw=draw,
            train=train,
            test=test,
            folder=self._workdir.subfolder(folder),
            mesh=mesh,
            quiet=self._quiet,
        )
        check_no_test_leakage(model.experiment and model.experiment.data, data)
        if not protocol.group:
            check_disjoint(train, test)
        sharding.check_batch(mesh, "batch", evaluation.batch)
        protocol.check(task)
        return task


def check_no_test_leakage(pretraining: Splits | None, data: Splits) -> None:
    """Raise `ValueError` if an encoder was pretrained on another split, which has test videos.

    Args:
      pretraining: data of pretraining, where known.
      data: data of the evaluation.
    """
    if isinstance(pretraining, Mixture):
        for share in pretraining.shares:
            check_no_test_leakage(share.data, data)
    if type(pretraining) is type(data) and getattr(pretraining, "split", 0) != getattr(
        data, "split", 0
    ):
        raise ValueError(
            f"the encoder was pretrained on split {pretraining.split}, which has test videos of "
            f"split {data.split}: pass --config.splits='({pretraining.split},)'"
        )


def _load_encoder(evaluation: Evaluation) -> Pretrained | None:
    if evaluation.init == UNTRAINED:
        raise ValueError(f"init={UNTRAINED!r} is the name of the untrained encoder: rename the run")
    if not evaluation.init:
        return None
    step = None if evaluation.step < 0 else evaluation.step
    return pretrained.load(evaluation.init, step, getattr(evaluation.protocol, "parts", False))
