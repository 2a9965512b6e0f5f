"""One training run in its folder: restore or start, train, save, and finish."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from vrl_jax.atomic_files import ConfigMismatch
from vrl_jax.data.data_loader import Loader, failed_videos, train_batches
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.train import provenance
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.run_log import Log, NullLog
from vrl_jax.train.train_loop import MetricsReader, Train, run_loop
from vrl_jax.train.train_step import TrainState
from vrl_jax.train.workdir import Workdir


def run_session(
    init: Callable[[], TrainState],
    make_step: Callable[[Callable[[str], None]], Callable[..., Any]],
    batches: Callable[[int], Iterator[Any]],
    *,
    workdir: Workdir,
    checkpoints: Checkpoints,
    config: Train,
    total_steps: int,
    clips_per_epoch: int,
    schedule: Callable[[int], float],
    open_log: Callable[[int], Log | NullLog],
    quarantine: Quarantine,
    probe: Callable[[TrainState], dict[str, float]] | None = None,
    count_videos: Callable[[int], Mapping[str, int]] = lambda step: {},
) -> TrainState:
    """Train from the newest checkpoint, or from the start, to `total_steps` or a signal.

    Args:
      init: () -> the state before the first step.
      make_step: a logger of one line -> the step (state, batch) -> (state, metrics).
      batches: step -> device-placed batches from that step on.
      workdir: folder of the run.
      checkpoints: open checkpoints of the run.
      config: cadences of logging, probing and saving.
      total_steps: length of the run.
      clips_per_epoch: to count epochs.
      schedule: step -> learning rate, for the log.
      open_log: step -> log that continues there.
      quarantine: list of unreadable videos.
      probe: evaluates a state during training, see `run_loop`.
      count_videos: step -> videos read so far by kind, for the log.

    Raises:
      ConfigMismatch: the checkpoint lies beyond `total_steps`.
      FloatingPointError: a metric is not finite.
      VideoError: too many videos cannot be read.
    """
    state = init()
    if checkpoints.latest() is not None:
        state = checkpoints.restore(state)
    start = int(state.step)
    if start > total_steps:
        raise ConfigMismatch(
            f"{workdir.path} is at step {start}, past the last step, {total_steps}"
        )
    with open_log(start) as log, contextlib.closing(batches(start)) as rows:
        log.info(provenance.version_line())
        log.info(f"workdir {workdir.path}: step {start} of {total_steps}")
        if start == total_steps:
            return state

        def counts(step: int) -> dict[str, int]:
            return {"unreadable_videos": len(quarantine), **count_videos(step)}

        reader = MetricsReader(log, config, clips_per_epoch, schedule, counts)
        return run_loop(
            state,
            make_step(log.info),
            rows,
            config=config,
            total_steps=total_steps,
            probe=probe,
            meter=reader,
            checkpoints=checkpoints,
            log=log,
        )


def host_batches(
    videos: VideoDataset,
    sampling: Sampling,
    resize: tuple[int, int],
    *,
    batch: int,
    seed: int,
    start: int,
    loader: Loader,
    quarantine: Quarantine,
    part: str,
) -> Iterator[dict[str, Any]]:
    """Yield this host's training batches from step `start` on; unreadable videos are recorded.

    Args:
      videos: the data set.
      sampling: frames of a clip.
      resize: height and width that frames are decoded to.
      batch: videos per step, over all hosts.
      seed: of order and clips.
      start: first step.
      loader: processes and buffers.
      quarantine: list of unreadable videos.
      part: "pretrain" or "train", for that list.
    """
    rows = train_batches(
        videos,
        sampling,
        resize,
        batch=batch,
        seed=seed,
        start=start,
        host=jax.process_index(),
        hosts=jax.process_count(),
        loader=loader,
    )
    with contextlib.closing(rows):
        for step, row in enumerate(rows, start + 1):
            quarantine.record(part, videos, failed_videos(row), step)
            yield row
