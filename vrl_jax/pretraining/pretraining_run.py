"""Pretraining in its folder: train, probe, and report."""

import contextlib
import sys
from collections.abc import Iterator

import jax

from vrl_jax.config import run_identity
from vrl_jax.data.datasets.mixture import VideoMixture
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video_dataset import VideoDataset, fingerprint, is_reverse_safe
from vrl_jax.experiment import Experiment
from vrl_jax.methods.base import HasDataWarnings
from vrl_jax.pretraining.initial_encoder import load_init
from vrl_jax.pretraining.online_probes import OnlineProbes
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.profiling.device_specs import find_chip
from vrl_jax.profiling.step_report import analyze_step, format_report, tree_bytes
from vrl_jax.profiling.step_trace import StepTrace, parse_steps
from vrl_jax.report import write_report
from vrl_jax.train import provenance, sharding
from vrl_jax.train.checkpoint import Checkpoints, list_steps
from vrl_jax.train.compilation import BackgroundCompile
from vrl_jax.train.quarantine import Quarantine, open_quarantine
from vrl_jax.train.run_log import Log, NullLog
from vrl_jax.train.train_session import host_batches, run_session
from vrl_jax.train.train_step import TrainState
from vrl_jax.train.wandb import WandbWriter, check_installed
from vrl_jax.train.workdir import open_workdir


class Pretraining:
    """An experiment in its folder: everything is checked on construction, nothing compiled.

    Args:
      experiment: the settings.
      workdir: gets checkpoints, logs, results and `report.html`; may be on an object store.
      quiet: show no progress bar and no warnings about the data.
      accept_changes: continue a run of another config or other data.
      wandb: project on Weights & Biases that receives the log as well; "" for none.
      profile: steps to trace, "FIRST:LAST"; "" for none.

    Raises:
      ValueError: missing data, a batch that the devices cannot share, or a workdir of another
        experiment.

    Attributes:
      identity: settings and data that checkpoints of the run share.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: str | AnyPath,
        quiet: bool = False,
        accept_changes: bool = False,
        wandb: str = "",
        profile: str = "",
    ):
        self.wandb, self.profile = wandb, parse_steps(profile)
        if wandb:
            check_installed()
        experiment, encoder = load_init(experiment)
        self.experiment, self.quiet = experiment, quiet
        self.workdir = open_workdir(workdir)
        self.mesh = sharding.make_mesh()
        sharding.check_batch(self.mesh, "evaluate.batch", experiment.evaluate.batch)
        self.videos = experiment.data.pretrain()
        check_mirror(experiment, self.videos)
        warns = isinstance(experiment.method, HasDataWarnings)
        if warns and not quiet and not jax.process_index():
            for text in experiment.method.data_warnings(experiment.data, experiment.sampling):
                print(f"warning: {text}", file=sys.stderr)
        self.program = make_program(experiment, len(self.videos), self.mesh, encoder)
        self.total_steps = self.program.horizon.steps
        if self.profile and self.profile[-1] > self.total_steps:
            raise ValueError(
                f"profile must be within the {self.total_steps} steps of the run, got {profile!r}"
            )
        self.probes = OnlineProbes(
            experiment, self.program.method, self.mesh, self.workdir.local, self.videos
        )
        self.identity = {"config": run_identity(experiment), "data": fingerprint(self.videos)}
        self.checkpoints = Checkpoints(
            self.workdir.checkpoints,
            experiment.train.keep,
            self.identity,
            accept_changes,
            self.workdir.push,
            lambda train: self.program.method.encoder(train.params, train.state),
        )

    def __call__(self) -> bool:
        """Continue from the newest checkpoint; return whether the last step was reached.

        Raises:
          ConfigMismatch: the checkpoint lies beyond the last step.
          FloatingPointError: a metric is not finite.
          VideoError: too many videos cannot be read.
        """
        experiment = self.experiment
        with self.workdir, self.checkpoints as checkpoints:
            limit = experiment.loader.max_failed
            quarantine = open_quarantine(self.workdir.local, checkpoints.latest() or 0, limit)
            trace = StepTrace(self.profile, self.workdir / "profile")
            with contextlib.closing(quarantine), trace:
                self.probes.quarantine = quarantine
                try:
                    state = self._train(checkpoints, quarantine, trace)
                except FloatingPointError as error:
                    hint = f"vrl replay {self.workdir.path}"
                    raise FloatingPointError(f"{error}; repeat this step by: {hint}") from error
                finished = int(state.step) == self.total_steps
                if finished:
                    untrained = experiment.evaluate.untrained
                    self.probes.finish(state, self.program.init() if untrained else None)
            if finished and not jax.process_index():
                report = write_report(self.workdir.local)
                print(f"report: {self.workdir.path / report.name}")
        return finished

    def _train(
        self, checkpoints: Checkpoints, quarantine: Quarantine, trace: StepTrace
    ) -> TrainState:
        """Train from the newest checkpoint to the last step or a signal."""
        train = self.experiment.train
        return run_session(
            self.program.init,
            lambda log: trace.wrap(BackgroundCompile(self.program.step, log), log),
            lambda start: self.batches(start, quarantine),
            workdir=self.workdir,
            checkpoints=checkpoints,
            config=train,
            total_steps=self.total_steps,
            clips_per_epoch=len(self.videos),
            schedule=self.experiment.optim.schedule(train.batch, self.total_steps),
            open_log=self._log,
            quarantine=quarantine,
            probe=self.probes.evaluate,
            count_videos=self._count_videos,
        )

    def plan(self) -> str:
        """Compile the step; return the settings and needs of the run, for `--dry_run`."""
        program, clips = self.program, self.program.clips
        side = self.experiment.augment.size
        views = (len(program.method.views), clips.shape[2], side, side, 3)
        weights = sum(leaf.size for leaf in jax.tree.leaves(program.state.params))
        epochs = self.total_steps / program.horizon.steps_per_epoch
        device = self.mesh.devices.flat[0].device_kind
        at = max(list_steps(self.workdir.checkpoints), default=0)
        rows = {
            "workdir": f"{self.workdir.path}, at step {at}",
            "data": f"{type(self.experiment.data).__name__}, {len(self.videos):,} videos",
            "length": f"{self.total_steps:,} steps, {epochs:.3g} epochs",
            "batch": f"u8{list(clips.shape)}, {tree_bytes(clips) / 1e6:,.1f} MB a step",
            "views": f"f32{[self.experiment.train.batch, *views]}",
            "probes": f"none of labels: {self.probes.nothing}" if self.probes.nothing else "labels",
            "init": self._describe_init(),
            "weights": f"{weights:,}, the whole state {tree_bytes(program.state) / 1e6:,.1f} MB, "
            f"{sharding.device_bytes(program.state) / 1e6:,.1f} MB on a device",
        }
        report = analyze_step(program, self.experiment, self.mesh, find_chip(device))
        lines = [f"{name:10}{text}" for name, text in rows.items()]
        return "\n".join([provenance.version_line(), *lines, "", format_report(report)])

    def _describe_init(self) -> str:
        """Return which parameters training starts from."""
        if not self.experiment.init:
            return "random"
        encoder = self.program.method.encoder(self.program.state.params, self.program.state.state)
        count = sum(leaf.size for leaf in jax.tree.leaves(encoder["params"]))
        return (
            f"{self.experiment.init}: all {count:,} parameters of {self.experiment.encoder}; "
            "the others are random"
        )

    def _log(self, start: int) -> Log | NullLog:
        """Return the log of the first process; the others have none."""
        if jax.process_index():
            return NullLog()
        provenance.write_provenance(self.workdir.local, self.experiment)
        folder, config = self.workdir.local, run_identity(self.experiment)
        sent = WandbWriter(self.wandb, folder, config) if self.wandb else None
        log = Log(folder, start, self.total_steps, self.quiet, sent)
        if self.probes.nothing:
            log.info(f"no probes of labels: {self.probes.nothing}")
        return log

    def _count_videos(self, step: int) -> dict[str, int]:
        """Return how many videos of each data set of a mixture were read up to a step."""
        if not isinstance(self.videos, VideoMixture):
            return {}
        counts = self.videos.count_draws(step * self.program.clips.shape[0])
        return {f"videos/{name}": count for name, count in counts.items()}

    def batches(self, start: int, quarantine: Quarantine) -> Iterator[jax.Array]:
        """Yield global batches from step `start` on, placed one step ahead of their use."""
        experiment = self.experiment
        rows = host_batches(
            self.videos,
            experiment.sampling,
            experiment.resize,
            batch=self.program.clips.shape[0],
            seed=experiment.train.seed,
            start=start,
            loader=experiment.loader,
            quarantine=quarantine,
            part="pretrain",
        )
        with contextlib.closing(rows):
            ready = None
            for batch in rows:
                ahead = sharding.shard_rows(self.mesh, batch["clips"])
                if ready is not None:
                    yield ready
                ready = ahead


def check_mirror(experiment: Experiment, source: VideoDataset) -> None:
    """Raise `ValueError` if mirrored or reversed views would change labels."""
    if experiment.augment.reverse and not is_reverse_safe(source):
        raise ValueError(
            f"augment.reverse is {experiment.augment.reverse}, but a reversed video has another "
            "label in this data set: pass --config.augment.reverse=0"
        )
    if experiment.augment.flip and not source.mirror_safe:
        raise ValueError(
            f"augment.flip is {experiment.augment.flip}, but a mirror image has another label in "
            "this data set: pass --config.augment.flip=0"
        )
