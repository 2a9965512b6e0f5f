"""Batches of clips: batch k is a pure function of (seed, k), for any workers and hosts.

Everything up to the batch is random access, and clips are drawn before the hosts' slice: a run
that restarts at step k asks for batch k, with whatever number of processes it then has.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from vrl_jax import check
from vrl_jax.data import sample
from vrl_jax.data.sample import Sampling
from vrl_jax.data.sources import Source


@dataclass(frozen=True)
class Loader:
    """What decodes beside the training step; no batch depends on it.

    Attributes:
      workers: processes that decode; 0 decodes in threads of the main process.
      threads: threads in each process, each at a batch of its own.
      buffer: batches kept ready by each process.
    """

    workers: int = 0
    threads: int = 2
    buffer: int = 2

    def __post_init__(self) -> None:
        """Refuse counts that load nothing."""
        check.at_least(0, workers=self.workers)
        check.at_least(1, threads=self.threads, buffer=self.buffer)


def train_batches(
    source: Source,
    sampling: Sampling,
    size: tuple[int, int],
    *,
    batch: int,
    seed: int,
    start: int = 0,
    host: int = 0,
    hosts: int = 1,
    loader: Loader = Loader(),
) -> Iterator[dict[str, Any]]:
    """Return this host's rows of batch `start`, `start + 1`, ... without end.

    The videos come in a new order every epoch, each once; an epoch need not end with a batch. Call
    `.close()` on the iterator when done, so that its workers stop.

    Args:
      source: the videos.
      sampling: clips are drawn at random by it.
      size: height and width of the frames, pixels.
      batch: videos in a batch of all hosts together.
      seed: of order and clips, in [0, 2^32).
      start: number of the first batch.
      host: this host's number.
      hosts: hosts that share each batch.
      loader: processes and threads.

    Returns:
      an iterator of {"clips": uint8 [b k t h w 3], "index": int64 [b], the video's number}, whose
      `b` is batch / hosts; it raises `VideoError` where a video does not decode.

    Raises:
      ValueError: where the hosts cannot share a batch or the source is empty.
    """
    check.at_least(0, start=start, seed=seed)
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    dataset = dataset.random_map(_RandomClips(source, sampling, size))  # before the hosts' slice
    dataset = dataset[host::hosts].batch(share, drop_remainder=True)[start:]
    return _iterate(dataset, loader)


def eval_batches(
    source: Source,
    sampling: Sampling,
    size: tuple[int, int],
    *,
    batch: int,
    host: int = 0,
    hosts: int = 1,
    loader: Loader = Loader(),
) -> Iterator[dict[str, Any]]:
    """Return batches with each of this host's videos once, in order, clips evenly spaced.

    Host h has videos h, h + hosts, ...: counts differ by one where they do not divide, and the last
    batch is short. Arguments, `.close()` and errors are those of `train_batches`.

    Returns:
      an iterator of the same dictionaries with "labels": {name: int64 [b]} added.
    """
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).map(_UniformClips(source, sampling, size))
    return _iterate(dataset[host::hosts].batch(share), loader)


@dataclass(frozen=True)
class _RandomClips(grain.transforms.RandomMap):
    source: Source
    sampling: Sampling
    size: tuple[int, int]

    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        with self.source[index].media.open() as reader:
            frames = sample.random_clips(rng, reader.num_frames, reader.fps, self.sampling)
            return {"clips": reader.read(frames, self.size), "index": np.int64(index)}


@dataclass(frozen=True)
class _UniformClips(grain.transforms.Map):
    source: Source
    sampling: Sampling
    size: tuple[int, int]

    def map(self, index: int) -> dict[str, Any]:
        video = self.source[index]
        with video.media.open() as reader:
            frames = sample.uniform_clips(reader.num_frames, reader.fps, self.sampling)
            clips = reader.read(frames, self.size)
        labels = {name: np.int64(label) for name, label in video.labels.items()}
        return {"clips": clips, "index": np.int64(index), "labels": labels}


def _share(source: Source, batch: int, host: int, hosts: int) -> int:
    check.at_least(1, batch=batch, hosts=hosts)
    check.one_of(tuple(range(hosts)), host=host)
    if len(source) == 0:
        raise ValueError(f"{source} has no videos to make batches of")
    if batch % hosts:
        raise ValueError(f"batch must be a multiple of the {hosts} hosts, got {batch}")
    return batch // hosts


def _iterate(dataset: grain.MapDataset, loader: Loader) -> Iterator[dict[str, Any]]:
    # The buffer counts batches here, and grain's default is 500.
    options = grain.ReadOptions(num_threads=loader.threads, prefetch_buffer_size=loader.buffer)
    batches = dataset.to_iter_dataset(options)
    if loader.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain hands its flags on to workers
        processes = grain.MultiprocessingOptions(loader.workers, per_worker_buffer_size=1)
        batches = batches.mp_prefetch(processes, worker_init_fn=_follow_parent)
    return iter(batches)


def _follow_parent(worker: int, workers: int) -> None:
    """Make a worker exit with its parent: without this, killing a run leaves its workers behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
