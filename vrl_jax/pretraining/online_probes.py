"""Probes of a pretraining run: during training, and at the end."""

import functools
import pathlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Complex

from vrl_jax import atomic_files, run_files
from vrl_jax.augment.clip_views import center_view
from vrl_jax.data.data_loader import eval_row
from vrl_jax.data.datasets.class_names import warn_about_untrained
from vrl_jax.data.video_dataset import MissingPart, VideoDataset, check_disjoint, take_subset
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
from vrl_jax.pretrained import MethodParts, add_ordered, from_run, method_parts
from vrl_jax.probes import leakage, result_files
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.probe_suite import check_group, run_probes, summarize_probes
from vrl_jax.probes.result_files import Result
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.sharding import gather, gather_on_hosts, replicated_sharding
from vrl_jax.train.train_step import TrainState

SPECTRUM_CLIPS = 64
HELD_OUT = ("held_out_accuracy", "held_out_precision")  # scores of results


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


def _find_parts(
    experiment: Experiment, videos: VideoDataset
) -> tuple[VideoDataset, VideoDataset, str]:
    """Return the training and the test videos of probes, and why there is nothing to predict."""
    try:
        test = experiment.data.test()
    except MissingPart as error:
        return videos, videos, str(error)
    if not test.classes:
        return test, test, "the test videos have no labels"
    if experiment.evaluate.group:  # needs no training videos, and opening a data set takes a while
        return test, test, ""
    try:
        train = experiment.data.train()
    except MissingPart as error:
        return test, test, str(error)
    if absent := set(test.classes).difference(train.classes):
        return test, test, f"the training videos have no label {min(absent)!r}"
    if not jax.process_index():
        warn_about_untrained(train, test, experiment.evaluate.cluster)
    return train, test, ""


class OnlineProbes:
    """Evaluates train states of one run, and writes the results that the report shows.

    Without labelled training and test videos, only indicators of collapse and the spectrum are
    recorded, on the test videos or, without any, on those of pretraining.

    Args:
      experiment: the run, whose `evaluate` has the settings of the probes.
      method: functions of the method.
      mesh: devices that encode.
      workdir: gets `spectrum.npz`, and at the end `results/` and `neighbours.npz`.
      videos: the videos of pretraining.

    Raises:
      ValueError: more neighbours than training videos, groups of an unknown label, or test videos
        among the training videos.

    Attributes:
      nothing: why no probe can be fitted; "" if probes can.
      quarantine: list of unreadable videos; set it before the first evaluation.
    """

    quarantine: Quarantine

    def __init__(
        self,
        experiment: Experiment,
        method: Method,
        mesh: Mesh,
        workdir: pathlib.Path,
        videos: VideoDataset,
    ):
        self._experiment, self._method, self._workdir = experiment, method, workdir
        evaluate = experiment.evaluate
        self._train, self._test, self.nothing = _find_parts(experiment, videos)
        self._labels = {} if self.nothing else self._test.classes
        check_group("evaluate.group", evaluate.group, tuple(self._labels))
        if not self.nothing:
            evaluate.check_data("evaluate", tuple(self._labels), len(self._train))
            if not evaluate.group:
                check_disjoint(self._train, self._test)
        train = None if self._train is self._test else self._train
        self._data = describe_data(experiment.data, self._test, train)
        sampling = replace(experiment.sampling, clips=evaluate.clips)
        self._input = EvalInput(sampling, experiment.resize, experiment.augment.size)
        self._encode = compile_sharded(self._clip_features, mesh)
        self._encode_parts, self._mesh = None, mesh
        everywhere = replicated_sharding(mesh)
        self._operators = jax.jit(
            lambda weights, clips: self._clip_operators(gather(weights, mesh), clips),
            in_shardings=(None, everywhere),
            out_shardings=everywhere,
        )
        self._last: tuple[tuple[int, int], FeatureBank, FeatureBank, list[Result]] | None = None

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Evaluate a state; `score`, on held-out training videos, ranks checkpoints."""
        videos = self._experiment.evaluate.probe_videos
        _, test, results = self._probe(state, videos)
        if self._method.operators:
            self._add_spectrum(state, take_subset(self._test, videos), test)
        held_out = [r[key] for r in results for key in HELD_OUT if key in r]
        score = np.mean(held_out) if held_out else state.step  # without probes the newest is best
        return {**summarize_probes(results, test), "score": float(score)}

    def finish(self, state: TrainState, untrained: TrainState | None) -> None:
        """Write the results of the last state, and its nearest neighbours.

        Args:
          state: the last one.
          untrained: the state before training, whose results are listed as well; None for none.
        """
        if self.nothing:
            if not jax.process_index():  # an empty folder: nothing is missing
                result_files.write_results(self._workdir / "results", [])
            return
        train, test, all_results = self._probe(state, 0)
        all_results = all_results + self._probe_parts(state)
        if untrained is not None:
            all_results = all_results + self._probe(untrained, 0, "untrained")[2]
            all_results = all_results + self._probe_parts(untrained, "untrained")
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
                if self._train is self._test
                else self._bank(state, "train", take_subset(self._train, videos))
            )
            unreadable = {"train": int(train.unreadable.sum()), "test": int(test.unreadable.sum())}
            stamp = self._stamp(state, init, unreadable)
            probed = run_probes(train, test, self._labels, config, stamp)
            self._last = key, train, test, probed
        return self._last[1:]

    def _parts(self, state: TrainState) -> MethodParts | None:
        """Return the embeddings that are probed besides the features; None for none."""
        config, method = self._experiment.evaluate, self._method
        variables = method.encoder(state.params, state.state)
        model = from_run(self._experiment, int(state.step), variables)
        if config.parts and method.parts:
            model = replace(model, parts=method_parts(method, state.params, state.state))
        return (add_ordered(model, config.segments) if config.segments else model).parts

    def _probe_parts(self, state: TrainState, init: str = "") -> list[Result]:
        """Return what the parts hold in all videos, if they are to be probed; see `leakage`."""
        parts = self._parts(state)
        if parts is None:
            return []
        if self._encode_parts is None:

            def joined(weights, clips):
                return parts.joined(weights, center_view(clips, self._experiment.augment))

            self._encode_parts = compile_sharded(joined, self._mesh)
        config, widths = self._experiment.evaluate, parts.widths(self._input.view_shape)
        encode = functools.partial(self._encode_parts, parts.weights)

        def banks(part: str, source: VideoDataset) -> dict[str, FeatureBank]:
            return leakage.split_bank(self._bank(state, part, source, encode), widths)

        test = banks("test", self._test)
        train = test if self._train is self._test else banks("train", self._train)
        twins = self._test.twins() if hasattr(self._test, "twins") else {}
        changed = {factor: banks("test", twin) for factor, twin in twins.items()}
        counts = {
            name: int(next(iter(part.values())).unreadable.sum())
            for name, part in (("train", train), ("test", test))
        }
        stamp = self._stamp(state, init, counts)
        results = leakage.probe_parts(train, test, self._labels, config, stamp)
        return results + [
            {**stamp, **result} for result in leakage.measure_responses(test, changed)
        ]

    def _bank(
        self,
        state: TrainState,
        part: str,
        source: VideoDataset,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> FeatureBank:
        experiment = self._experiment
        batches = host_eval_batches(
            source,
            self._input.sampling,
            experiment.resize,
            experiment.evaluate.batch,
            experiment.loader,
        )
        return extract_bank(
            encode or functools.partial(self._encode, (state.params, state.state)),
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
        variables = gather_on_hosts(self._method.encoder(state.params, state.state))
        model = from_run(experiment, int(state.step), variables)
        return stamp_result(
            protocol, {**describe_model(model), "init": init}, self._data, unreadable
        )
