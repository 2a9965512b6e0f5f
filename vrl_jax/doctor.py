"""Find the bottleneck of the input pipeline on your data and machine.

`python -m vrl_jax.doctor --config=configs/k400_bod.py --config.data.root=/path/to/k400` takes
the flags of `vrl_jax.main`. It measures each stage from the disk to the training step in isolation,
prints the videos per second of each stage, and names the bottleneck and the settings to change.
"""

import contextlib
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from jaxtyping import UInt8

from vrl_jax import check
from vrl_jax.data import frame_sampling, remote_paths
from vrl_jax.data.data_loader import train_batches
from vrl_jax.data.video.video_decoder import Excerpt, VideoFile
from vrl_jax.data.video_dataset import Video, VideoDataset, VideoError, VideoHandle, take_subset
from vrl_jax.experiment import Experiment
from vrl_jax.flags import config_from_flags, launch
from vrl_jax.pretraining.initial_encoder import load_init
from vrl_jax.pretraining.pretraining_run import check_mirror
from vrl_jax.pretraining.train_program import Program, make_program
from vrl_jax.profiling.input_report import Rates, Setup, diagnose_input, prepare_commands
from vrl_jax.train import sharding

_STEPS = flags.DEFINE_integer("steps", 20, "Batches and training steps to time.")

VIDEOS = 64  # number of videos on which reading and decoding are timed
SECONDS = 10.0  # time limit of each of the two measurements


def read_rate(source: VideoDataset) -> tuple[float, float]:
    """Return videos per second and bytes per video of one process that reads from the disk.

    The page cache of a file is dropped before it is read, so that repeated runs are comparable.
    """
    sizes, start = [], time.perf_counter()
    for video in _sample_videos(source):
        sizes.append(_read(video.media))
    seconds = time.perf_counter() - start
    return (len(sizes) / seconds if sum(sizes) else math.inf), statistics.mean(sizes)


def _read(media: VideoHandle) -> int:
    """Return the number of bytes read from a video; 0 if it is rendered or in memory."""
    if isinstance(media, Excerpt):
        return _read(media.media)
    with contextlib.suppress(OSError):
        if isinstance(media, VideoFile) and remote_paths.is_remote(media.path):
            return len(remote_paths.read_remote(media.path))
        if isinstance(media, VideoFile):
            with open(media.path, "rb") as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return len(file.read())
        if hasattr(media, "data") and hasattr(media.data, "read"):  # part of a larger file
            return len(media.data.read())
    return 0


def decode_rate(experiment: Experiment, source: VideoDataset) -> float:
    """Return videos per second of one process that opens videos and reads random clips.

    Raises:
      ValueError: no sampled video can be read.
    """
    rng, done, failed = np.random.default_rng(0), 0, ""
    start = time.perf_counter()
    for video in _sample_videos(source):
        try:
            with video.media.open() as reader:
                length, fps = reader.num_frames, reader.fps
                clips = frame_sampling.random_clips(rng, length, fps, experiment.sampling)
                reader.read(clips, experiment.resize)
            done += 1
        except VideoError as error:
            failed = str(error)
    if not done:
        raise ValueError(f"no video can be read: {failed}")
    return done / (time.perf_counter() - start)


def _sample_videos(source: VideoDataset) -> Iterator[Video]:
    """Yield up to VIDEOS evenly spaced videos, for up to SECONDS."""
    subset, end = take_subset(source, VIDEOS), time.perf_counter() + SECONDS
    for index in range(len(subset)):
        yield subset[index]
        if time.perf_counter() > end:
            return


def loader_rate(experiment: Experiment, source: VideoDataset, rows: int, steps: int) -> float:
    """Return videos per second of the loader in steady state, in batches of `rows`."""
    loader = experiment.loader
    lanes = max(1, loader.workers) * loader.threads  # batches decoded in parallel
    count = math.ceil(steps / lanes) * lanes
    batches = train_batches(
        source,
        experiment.sampling,
        experiment.resize,
        batch=rows,
        seed=experiment.train.seed,
        loader=loader,
    )
    with contextlib.closing(batches):
        for _ in range(lanes - 1):
            next(batches)
        return _rate(lambda: next(batches), rows, count)


def transfer_rate(mesh: Mesh, clips: UInt8[np.ndarray, "b k t h w 3"], steps: int) -> float:
    """Return videos per second from host memory to the devices."""
    return _rate(lambda: sharding.shard_rows(mesh, clips).block_until_ready(), len(clips), steps)


def step_rate(program: Program, mesh: Mesh, clips: np.ndarray, steps: int) -> float:
    """Return videos per second of the compiled training step on a batch in device memory."""
    state, batch = program.init(), sharding.shard_rows(mesh, clips)
    step = program.step.lower().compile()

    def work():
        nonlocal state
        state, _ = step(state, batch)
        state.step.block_until_ready()

    return _rate(work, len(clips), steps)


def _rate(work: Callable[[], Any], videos: int, times: int) -> float:
    """Return videos per second of `work`, which processes `videos`, after one warm-up call."""
    work()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return videos * times / (time.perf_counter() - start)


def measure_stages(experiment: Experiment, steps: int) -> str:
    """Measure each stage and return the table and the diagnosis.

    Raises:
      ValueError: training would raise it too, or no video can be read.
    """
    check.at_least(1, steps=steps)
    mesh, source = sharding.make_mesh(), experiment.data.pretrain()
    check_mirror(experiment, source)
    experiment, encoder = load_init(experiment)
    program = make_program(experiment, len(source), mesh, encoder)
    shape, rows = program.clips.shape, program.clips.shape[0]
    clips = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    read, size = read_rate(source)
    rates = Rates(
        read=read,
        decode=decode_rate(experiment, source),
        loader=loader_rate(experiment, source, rows, steps),
        transfer=transfer_rate(mesh, clips, steps),
        step=step_rate(program, mesh, clips, steps),
    )
    setup = Setup(
        loader=experiment.loader,
        cores=os.cpu_count() or 1,
        resize=experiment.resize,
        crop=experiment.augment.size,
        prepare=prepare_commands(experiment.data, min(experiment.resize)),
    )
    return f"{format_rates(rates, setup, size, rows)}\n\n{diagnose_input(rates, setup)}"


def format_rates(rates: Rates, setup: Setup, size: float, rows: int) -> str:
    """Return the rates as a table with the conditions of each measurement."""
    loader = setup.loader
    backend = f"{jax.device_count()} {jax.default_backend()} device(s)"
    notes = {
        "read": f"one process, {size / 1e6:.2f} MB per video" if size else "no files",
        "decode": "one process",
        "loader": f"workers={loader.workers}, threads={loader.threads}, {setup.cores} cores",
        "transfer": f"batches of {rows} to {backend}",
        "step": f"batches of {rows}",
    }
    lines = [f"{name:10}{vars(rates)[name]:12,.1f}   {note}" for name, note in notes.items()]
    if jax.default_backend() == "cpu":
        lines.append("Training and decoding share the CPU, so that both are slower in training.")
    return "\n".join([f"{'':10}{'videos/s':>12}", *lines])


def main() -> None:
    """Measure the stages and print the report."""
    try:
        experiment = config_from_flags()
        if not isinstance(experiment, Experiment):
            raise ValueError("config must describe a pretraining run, got an evaluation")
        print(measure_stages(experiment, _STEPS.value))
    except (ValueError, VideoError) as error:  # VideoError: no video of the data set can be read
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    launch(main)
