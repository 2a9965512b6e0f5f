"""Probes of a pretraining run: during training, and at the end."""

import functools
import pathlib
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Complex

from vrl_jax import atomic_files
from vrl_jax.augment.clip_views import center_view
from vrl_jax.data.data_loader import eval_row
from vrl_jax.data.video_dataset import VideoDataset, check_disjoint, take_subset
from vrl_jax.evaluation.eval_protocol import EvalInput
from vrl_jax.evaluation.feature_extraction import compile_sharded, extract_bank, host_eval_batches
from vrl_jax.evaluation.neighbour_gallery import find_neighbours
from vrl_jax.evaluation.result_stamp import (
    describe_data,
    describe_input,
    describe_model,
    stamp_result,
)
from vrl_jax.experiment import Experiment
from vrl_jax.methods.base import Method
from vrl_jax.pretrained import from_run
from vrl_jax.probes import result_files
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.probe_suite import check_group, run_probes, summarize_probes
from vrl_jax.probes.result_files import Result
from vrl_jax.report import run_files
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.sharding import replicated_sharding
from vrl_jax.train.train_step import TrainState

SPECTRUM_CLIPS = 64


def join_spectra(
    earlier: Complex[np.ndarray, "p n m"], newest: Complex[np.ndarray, "1 k m"]
) -> Complex[np.ndarray, "_ _ m"]:
    """Return the eigenvalues of all probes; missing clips are NaN."""
    clips = max(earlier.shape[1], newest.shape[1])
    return np.concatenate(
        [
            np.pad(x, ((0, 0), (0, clips - x.shape[1]), (0, 0)), constant_values=np.nan)
            for x in (earlier, newest)
        ]
    )


class OnlineProbes:
    """Evaluates train states of one run, and writes the results that the report shows.

    Args:
      experiment: the run, whose `evaluate` has the settings of the probes.
      method: functions of the method.
      mesh: devices that encode.
      workdir: gets `spectrum.npz`, and at the end `results/` and `neighbours.npz`.

    Raises:
      ValueError: more neighbours than training videos, groups of an unknown label, or test videos
        among the training videos.

    Attributes:
      quarantine: list of unreadable videos; set it before the first evaluation.
    """

    quarantine: Quarantine

    def __init__(self, experiment: Experiment, method: Method, mesh: Mesh, workdir: pathlib.Path):
        self._experiment, self._method, self._workdir = experiment, method, workdir
        self._test = experiment.data.test()
        evaluate = experiment.evaluate
        check_group("evaluate.group", evaluate.group, tuple(self._test.classes))
        # Leaving groups out needs no training videos, and opening a data set may take a while.
        self._train = self._test if evaluate.group else experiment.data.train()
        evaluate.check_data("evaluate", tuple(self._test.classes), len(self._train))
        if not evaluate.group:
            check_disjoint(self._train, self._test)
        train = None if evaluate.group else self._train
        self._data = describe_data(experiment.data, self._test, train)
        sampling = replace(experiment.sampling, clips=evaluate.clips)
        self._input = EvalInput(sampling, experiment.resize, experiment.augment.size)
        self._encode = compile_sharded(self._clip_features, mesh)
        everywhere = replicated_sharding(mesh)
        self._operators = jax.jit(
            self._clip_operators, in_shardings=everywhere, out_shardings=everywhere
        )
        self._last: tuple[tuple[int, int], FeatureBank, FeatureBank, list[Result]] | None = None

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Evaluate a state; `score`, on held-out training videos, ranks checkpoints."""
        videos = self._experiment.evaluate.probe_videos
        _, test, results = self._probe(state, videos)
        if self._method.operators:
            self._add_spectrum(state, take_subset(self._test, videos), test)
        held_out = [r["held_out_accuracy"] for r in results if "held_out_accuracy" in r]
        return {**summarize_probes(results, test), "score": float(np.mean(held_out))}

    def finish(self, state: TrainState, untrained: TrainState | None) -> None:
        """Write the results of the last state, and its nearest neighbours.

        Args:
          state: the last one.
          untrained: the state before training, whose results are listed as well; None for none.
        """
        train, test, all_results = self._probe(state, 0)
        if untrained is not None:
            all_results = all_results + self._probe(untrained, 0, "untrained")[2]
        if jax.process_index():
            return
        result_files.write_results(self._workdir / "results", all_results, self._test)
        config = self._experiment.evaluate
        if config.neighbours:
            gallery = find_neighbours(
                (self._train, train),
                (self._test, test),
                lambda source, index: self._read(source, index)["clips"],
                count=config.neighbours,
                group=config.group,
                center=config.center,
            )
            atomic_files.write_npz(self._workdir / "neighbours.npz", gallery)

    def _probe(self, state: TrainState, videos: int, init: str = ""):
        """Return feature banks and results on `videos` videos; the last ones are cached."""
        longest = max(len(self._train), len(self._test))
        key = int(state.step), min(videos or longest, longest)
        if self._last is None or self._last[0] != key:
            config = self._experiment.evaluate
            test = self._bank(state, "test", take_subset(self._test, videos))
            train = (
                test
                if config.group
                else self._bank(state, "train", take_subset(self._train, videos))
            )
            unreadable = {"train": int(train.unreadable.sum()), "test": int(test.unreadable.sum())}
            stamp = self._stamp(state, init, unreadable)
            probed = run_probes(train, test, self._test.classes, config, stamp)
            self._last = key, train, test, probed
        return self._last[1:]

    def _bank(self, state: TrainState, part: str, source: VideoDataset) -> FeatureBank:
        experiment = self._experiment
        batches = host_eval_batches(
            source,
            self._input.sampling,
            experiment.resize,
            experiment.evaluate.batch,
            experiment.loader,
        )
        return extract_bank(
            functools.partial(self._encode, (state.params, state.state)),
            batches,
            source,
            part=part,
            batch=experiment.evaluate.batch,
            quarantine=self.quarantine,
            step=int(state.step),
        )

    def _clip_features(self, weights, clips):
        view = center_view(clips, self._experiment.augment)
        return self._method.encode(*weights, view).clip

    def _clip_operators(self, weights, clips):
        view = center_view(clips, self._experiment.augment)
        return self._method.operators(*weights, view)

    def _add_spectrum(self, state: TrainState, source: VideoDataset, bank: FeatureBank) -> None:
        """Append the eigenvalues of the first readable clips' operators to `spectrum.npz`.

        A clip that could be read for the bank but no longer can gets NaN.
        """
        readable = np.flatnonzero(~bank.unreadable)[:SPECTRUM_CLIPS]
        rows = [self._read(source, i) for i in readable.tolist()]
        clips = np.stack([row["clips"][0] for row in rows])
        matrices, radius = self._operators((state.params, state.state), clips)
        matrices = np.asarray(matrices, np.float64)
        if jax.process_index():
            return
        values = np.linalg.eigvals(matrices).astype(np.complex64)[None]
        values[0, [bool(row["failures"]) for row in rows]] = np.nan
        step, path = int(state.step), self._workdir / "spectrum.npz"
        steps, eigenvalues = np.array([step]), values
        if path.exists():
            saved = run_files.read_arrays(path, ["steps", "eigenvalues"])
            earlier = saved["steps"] < step
            steps = np.append(saved["steps"][earlier], steps)
            eigenvalues = join_spectra(saved["eigenvalues"][earlier], values)
        arrays = {"steps": steps, "eigenvalues": eigenvalues, "radius": np.asarray(radius)}
        atomic_files.write_npz(path, arrays)

    def _read(self, source: VideoDataset, index: int) -> dict[str, Any]:
        """Return a video's row in the clips of the probes."""
        experiment = self._experiment
        return eval_row(source, index, self._input.sampling, experiment.resize, experiment.loader)

    def _stamp(self, state: TrainState, init: str, unreadable: dict[str, int]) -> dict[str, Any]:
        """Return what every result carries: protocol, encoder and data."""
        experiment, config = self._experiment, self._experiment.evaluate
        protocol = {
            "name": "probe",
            "split": f"leave one {config.group} out" if config.group else "train, test",
            **describe_input(self._input, experiment.augment),
            "pooling": "mean over time and space, mean over clips",
            "centring": config.center,
            "knn": config.knn,
            "linear": asdict(config.linear),
        }
        variables = self._method.encoder(state.params, state.state)
        model = from_run(experiment, int(state.step), variables)
        return stamp_result(
            protocol, {**describe_model(model), "init": init}, self._data, unreadable
        )
