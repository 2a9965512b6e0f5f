"""Batches of clips: batch k is a pure function of (seed, k), for any workers and hosts.

Everything up to the batch is random access, and clips are drawn before the hosts' slice: a run
that restarts at step k asks for batch k, with whatever number of processes it then has.

A video that cannot be read costs no batch, and is never passed over in silence. In training its
place is filled by another, drawn from the place's own random numbers, so that nothing else moves.
In evaluation its clips are black and it is for the judge to count it as wrong. Both say so under
`failures`.
"""

import copy
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grain
import numpy as np
from absl import flags

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.dataset import Video, VideoDataset, VideoError
from vrl_jax.data.frame_sampling import Sampling

T = TypeVar("T")
TRIES = 10  # videos in a row that may fail in one place: more means that the data set is not there


@dataclass(frozen=True)
class Loader:
    """What decodes beside the training step; no batch of readable videos depends on it.

    Attributes:
      workers: processes that decode; 0 decodes in threads of the main process.
      threads: threads in each process, each at a batch of its own.
      buffer: batches kept ready by each process.
      time_limit: seconds after which a video that is still being read counts as unreadable.
      max_failed: greatest share of a data set's videos that may be unreadable before a run stops.
    """

    workers: int = 0
    threads: int = 2
    buffer: int = 2
    time_limit: float = 60.0
    max_failed: float = 0.02

    def __post_init__(self) -> None:
        """Refuse counts that load nothing."""
        check.at_least(0, workers=self.workers)
        check.at_least(1, threads=self.threads, buffer=self.buffer)
        check.positive(time_limit=self.time_limit)
        check.fraction(max_failed=self.max_failed)


def train_batches(
    source: VideoDataset,
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
      an iterator of {"clips": uint8 [b k t h w 3], "index": int64 [b], the video's number,
      "failures": str [b], see `failures`}, whose `b` is batch / hosts; it raises `VideoError` where
      one video after the other cannot be read.

    Raises:
      ValueError: where the hosts cannot share a batch or the source is empty.
    """
    check.at_least(0, start=start, seed=seed)
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    dataset = dataset.random_map(_RandomClips(source, sampling, size, loader.time_limit))
    rows = grain.MapDataset.range(len(dataset) // hosts).map(_HostRows(dataset, batch, host, share))
    dataset = rows.batch(share, drop_remainder=True)[start:]
    return _iterate(dataset, loader)


def eval_batches(
    source: VideoDataset,
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
    batch is short. Arguments and `.close()` are those of `train_batches`.

    Returns:
      an iterator of the same dictionaries; the clips of a video that cannot be read are zero.
    """
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).map(
        _UniformClips(source, sampling, size, loader.time_limit)
    )
    return _iterate(dataset[host::hosts].batch(share), loader)


def eval_row(
    source: VideoDataset, index: int, sampling: Sampling, size: tuple[int, int], loader: Loader
) -> dict[str, Any]:
    """Return one video's row of `eval_batches`: black clips where it cannot be read."""
    return _UniformClips(source, sampling, size, loader.time_limit).map(index)


def failed_videos(batch: dict[str, Any]) -> list[tuple[int, str]]:
    """Return (the video's number, the reason) of every video that a batch could not read."""
    return [(number, why) for text in batch["failures"] if text for number, why in json.loads(text)]


@dataclass(frozen=True)
class _Clips:
    """What reads the clips of a video, or gives up."""

    source: VideoDataset
    sampling: Sampling
    size: tuple[int, int]
    time_limit: float

    def read(self, index: int, choose: Callable[..., np.ndarray]) -> np.ndarray:
        video = self.source[index]

        def work():
            with video.media.open() as reader:
                if self.sampling.fps and not reader.fps > 0:
                    raise VideoError(
                        f"{video.id}: it has no frame rate, and sampling.fps wants one"
                    )
                frames = choose(reader.num_frames, reader.fps, self.sampling)
                return reader.read(frames, self.size)

        return run_within(self.time_limit, video, work)


@dataclass(frozen=True)
class _RandomClips(_Clips, grain.transforms.RandomMap):
    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        spare = np.random.Generator(rng.bit_generator.jumped())
        failed = []
        while len(failed) < TRIES:
            try:
                # A copy: a thread that was left behind may wake and draw.
                clips = self.read(index, partial(frame_sampling.random_clips, copy.deepcopy(rng)))
                return _row(clips, index, failed)
            except VideoError as error:
                failed.append((int(index), str(error)))
                index, rng = int(spare.integers(len(self.source))), spare
        reasons = "; ".join(reason for _, reason in failed[:3])
        raise VideoError(f"{TRIES} videos in a row cannot be read: {reasons} ...")


@dataclass(frozen=True)
class _UniformClips(_Clips, grain.transforms.Map):
    def map(self, index: int) -> dict[str, Any]:
        try:
            return _row(self.read(index, frame_sampling.uniform_clips), index, [])
        except VideoError as error:
            shape = (self.sampling.clips, self.sampling.frames, *self.size, 3)
            return _row(np.zeros(shape, np.uint8), index, [(int(index), str(error))])


@dataclass(frozen=True)
class _HostRows(grain.transforms.Map):
    """What a host has of each batch: neighbouring rows, so that hosts in order make the batch."""

    dataset: grain.MapDataset
    batch: int
    host: int
    share: int

    def map(self, row: int) -> dict[str, Any]:
        number, place = divmod(int(row), self.share)
        return self.dataset[number * self.batch + self.host * self.share + place]


def _row(clips: np.ndarray, index: int, failed: list[tuple[int, str]]) -> dict[str, Any]:
    told = np.str_(json.dumps(failed) if failed else "")
    return {"clips": clips, "index": np.int64(index), "failures": told}


def run_within(seconds: float, video: Video, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise `VideoError` when it takes longer.

    A decoder that hangs in foreign code cannot be interrupted: its thread is left behind.
    """
    if not hasattr(_BESIDE, "thread"):
        _BESIDE.thread = _Beside()
    _BESIDE.thread.tasks.put(work)
    try:
        result, error = _BESIDE.thread.done.get(timeout=seconds)
    except queue.Empty:
        del _BESIDE.thread
        raise VideoError(f"{video.id}: not read within {seconds:g} s") from None
    if error:
        raise error
    return result


class _Beside:
    """A thread that does what another one waits for, and that ends when this is forgotten.

    It is kept from one video to the next: a new thread is slow to get memory.
    """

    def __init__(self) -> None:
        self.tasks, self.done = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self.tasks, self.done), daemon=True).start()

    def __del__(self) -> None:
        self.tasks.put(None)


_BESIDE = threading.local()  # of every thread that reads


def _serve(tasks: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
    while work := tasks.get():
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))
        del work  # and what it holds, while there is nothing to do


def _share(source: VideoDataset, batch: int, host: int, hosts: int) -> int:
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
        batches = batches.mp_prefetch(processes, worker_init_fn=partial(_follow, os.getpid()))
    return iter(batches)


def _follow(parent: int, worker: int, workers: int) -> None:
    """Make a worker end with its parent, never before: a signal to all of a run is the parent's.

    It still feeds the steps until the run has saved; and killing a run leaves no workers behind.
    The parent tells its own number: by the time a worker could ask, it may have been killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
