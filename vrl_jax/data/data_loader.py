"""Batches of clips: batch k is a pure function of (seed, k), for any number of workers and hosts.

The pipeline is random access up to the batch, and clips are sampled before batches are divided
among hosts. A run that restarts at step k reads batch k, with any number of processes.

An unreadable video costs no batch and is always reported under `failures`. In training it is
replaced by another video, drawn from the row's own random numbers, so that all other rows stay the
same. In evaluation its clips are black, and the evaluation has to count it as wrong.
"""

import copy
import gc
import json
import math
import os
import pathlib
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

import grain
import numpy as np
from absl import flags

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Video, VideoDataset, VideoError

T = TypeVar("T")
TRIES = 10  # videos tried for one row; if all of them fail, the data set is likely absent
SHARED_MEMORY = pathlib.Path("/dev/shm")  # workers pass batches through it


@dataclass(frozen=True)
class Loader:
    """Decoding processes; batches of readable videos do not depend on these settings.

    Attributes:
      workers: decoding processes; 0 decodes in threads of the main process.
      threads: threads per process, each decoding its own batch.
      buffer: batches that each process prefetches.
      time_limit: seconds after which a video that is still being read counts as unreadable.
      max_failed: maximum fraction of a data set's videos that may be unreadable; beyond it the run
        stops.
    """

    workers: int = 0
    threads: int = 2
    buffer: int = 2
    time_limit: float = 60.0
    max_failed: float = 0.02

    def __post_init__(self) -> None:
        """Check the counts, the time limit and the fraction."""
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
    """Return this host's rows of batch `start`, `start + 1`, ..., an infinite iterator.

    Every epoch has each video once, in a new order; epochs may end within a batch. Call `.close()`
    on the iterator to stop its workers.

    Args:
      source: the videos.
      sampling: how random clips are sampled.
      size: height and width of the frames, pixels.
      batch: videos in a global batch, over all hosts.
      seed: seed of order and clips, in [0, 2^32).
      start: number of the first batch.
      host: index of this host.
      hosts: number of hosts that share each batch.
      loader: processes and threads.

    Returns:
      an iterator of {"clips": uint8 [b k t h w 3], "index": int64 [b], the number of the video,
      "failures": str [b], see `failed_videos`} with `b` = batch / hosts. It raises `VideoError`
      where `TRIES` videos in a row cannot be read.

    Raises:
      ValueError: `batch` is not divisible by `hosts`, or the data set is empty.
      OSError: the workers' batches do not fit into `/dev/shm`, or a worker died.
    """
    check.at_least(0, start=start, seed=seed)
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    dataset = dataset.random_map(_RandomClips(source, sampling, size, loader.time_limit))
    rows = grain.MapDataset.range(len(dataset) // hosts).map(_HostRows(dataset, batch, host, share))
    dataset = rows.batch(share, drop_remainder=True)[start:]
    return _iterate(dataset, loader, share * _clip_bytes(sampling, size))


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
    """Return batches of evenly spaced clips, each of this host's videos once, in order.

    Host h has videos h, h + hosts, ..., so that the hosts' numbers of videos differ by at most one.
    The last batch may be smaller. Arguments and `.close()` are those of `train_batches`.

    Returns:
      an iterator of the same dictionaries; clips of unreadable videos are zero.
    """
    share = _share(source, batch, host, hosts)
    dataset = grain.MapDataset.range(len(source)).map(
        _UniformClips(source, sampling, size, loader.time_limit)
    )
    dataset = dataset[host::hosts].batch(share)
    return _iterate(dataset, loader, min(share, len(source)) * _clip_bytes(sampling, size))


def eval_row(
    source: VideoDataset, index: int, sampling: Sampling, size: tuple[int, int], loader: Loader
) -> dict[str, Any]:
    """Return the row of one video in `eval_batches`; its clips are black if it is unreadable."""
    return _UniformClips(source, sampling, size, loader.time_limit).map(index)


def failed_videos(batch: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the number of each unreadable video of a batch, and the reason."""
    return [(number, why) for text in batch["failures"] if text for number, why in json.loads(text)]


@dataclass(frozen=True)
class _Clips:
    """Base of the transforms that read the clips of a video."""

    source: VideoDataset
    sampling: Sampling
    size: tuple[int, int]
    time_limit: float

    def read(self, index: int, choose: Callable[..., np.ndarray]) -> np.ndarray:
        try:
            video = self.source[index]
        except StopIteration as error:  # grain takes it for the end of an epoch
            name = f"{type(self.source).__name__}[{index}]"
            raise ValueError(f"{name} raised StopIteration, as `next` of no items does") from error

        def work():
            with video.media.open() as reader:
                if self.sampling.fps and not reader.fps > 0:
                    raise VideoError(
                        f"{video.id}: it has no frame rate, which sampling.fps requires"
                    )
                frames = choose(reader.num_frames, reader.fps, self.sampling)
                return reader.read(frames, self.size)

        return run_with_timeout(self.time_limit, video, work)


@dataclass(frozen=True)
class _RandomClips(_Clips, grain.transforms.RandomMap):
    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        spare = np.random.Generator(rng.bit_generator.jumped())
        failed = []
        while len(failed) < TRIES:
            try:
                # A copy, because an abandoned thread may still draw from it.
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
    """A host's rows of each batch: consecutive ones, so that hosts in order make up the batch."""

    dataset: grain.MapDataset
    batch: int
    host: int
    share: int

    def map(self, row: int) -> dict[str, Any]:
        number, position = divmod(int(row), self.share)
        return self.dataset[number * self.batch + self.host * self.share + position]


def _row(clips: np.ndarray, index: int, failed: list[tuple[int, str]]) -> dict[str, Any]:
    failures = np.str_(json.dumps(failed) if failed else "")
    return {"clips": clips, "index": np.int64(index), "failures": failures}


def run_with_timeout(seconds: float, video: Video, work: Callable[[], T]) -> T:
    """Return the result of `work`; raises `VideoError` if it takes longer than `seconds`.

    A decoder that hangs in native code cannot be interrupted, so its thread is abandoned. A
    `StopIteration`, which grain takes for the end of an epoch, becomes a `VideoError`, and so does
    the `RuntimeError` that Python makes from it in a generator.
    """
    if not hasattr(_LOCAL, "thread"):
        _LOCAL.thread = _WorkThread()
    _LOCAL.thread.tasks.put(work)
    try:
        result, error = _LOCAL.thread.done.get(timeout=seconds)
    except queue.Empty:
        del _LOCAL.thread
        raise VideoError(f"{video.id}: could not be read within {seconds:g} s") from None
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    if isinstance(cause, StopIteration):
        raise VideoError(
            f"{video.id}: reading it raised StopIteration, as `next` of no items does"
        ) from error
    if error:
        raise error
    return result


class _WorkThread:
    """A thread that runs tasks for another one; it ends when this object is deleted.

    It is reused from video to video, because new threads are slow to allocate memory.
    """

    def __init__(self) -> None:
        self.tasks, self.done = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self.tasks, self.done), daemon=True).start()

    def __del__(self) -> None:
        self.tasks.put(None)


_LOCAL = threading.local()  # the `_WorkThread` of each reading thread


def _serve(tasks: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
    while work := tasks.get():
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))
        del work  # frees what it holds while the thread is idle


def _share(source: VideoDataset, batch: int, host: int, hosts: int) -> int:
    check.at_least(1, batch=batch, hosts=hosts)
    check.one_of(tuple(range(hosts)), host=host)
    if len(source) == 0:
        raise ValueError(f"{source} has no videos")
    if batch % hosts:
        raise ValueError(f"batch must be a multiple of the {hosts} hosts, got {batch}")
    return batch // hosts


def _clip_bytes(sampling: Sampling, size: tuple[int, int]) -> int:
    return sampling.clips * sampling.frames * math.prod(size) * 3


def _iterate(
    dataset: grain.MapDataset, loader: Loader, batch_bytes: int
) -> Iterator[dict[str, Any]]:
    # The buffer counts batches here; grain's default is 500.
    options = grain.ReadOptions(num_threads=loader.threads, prefetch_buffer_size=loader.buffer)
    batches = dataset.to_iter_dataset(options)
    if not loader.workers:
        return iter(batches)
    # The least that is in use: the batch that each worker makes, and one that is consumed.
    least = min(loader.workers, len(dataset)) + 1
    if shared_memory()[0] < least * batch_bytes:
        _refuse_shared_memory(loader, batch_bytes)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain passes its flags on to workers
    processes = grain.MultiprocessingOptions(loader.workers, per_worker_buffer_size=1)
    batches = batches.mp_prefetch(processes, worker_init_fn=partial(_follow, os.getpid()))
    return _from_workers(iter(batches), loader, batch_bytes)


def shared_memory() -> tuple[float, float]:
    """Return the free and all bytes of `/dev/shm`; infinite where there is none, as on macOS."""
    if not SHARED_MEMORY.is_dir():
        return math.inf, math.inf
    state = os.statvfs(SHARED_MEMORY)
    return state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize


def _from_workers(
    batches: Iterator[dict[str, Any]], loader: Loader, batch_bytes: int
) -> Iterator[dict[str, Any]]:
    """Yield the batches of worker processes; raise `OSError` with a remedy if one of them dies."""
    try:
        yield from batches
    except RuntimeError as error:
        death = re.search(r"Worker process .* exit code (-?\d+)", str(error))
        if not death:
            raise
        code = int(death[1])
        if code == -signal.SIGBUS:  # a page of shared memory that does not exist
            _refuse_shared_memory(loader, batch_bytes)
        remedy = (
            "if the machine ran out of memory, lower loader.workers or loader.buffer"
            if code == -signal.SIGKILL
            else "a script needs `if __name__ == '__main__':` around the call that starts workers, "
            "and one from stdin needs loader.workers=0"
        )
        raise ChildProcessError(f"a loader worker ended with exit code {code}: {remedy}") from error
    finally:
        batches.close()
        gc.collect()  # the end of a worker is an error whose frames hold its last batch


def _refuse_shared_memory(loader: Loader, batch_bytes: int) -> NoReturn:
    free, size = (number / 1e6 for number in shared_memory())
    most = loader.workers * (loader.buffer + 4) + 1  # batches, if all wait for the consumer
    raise OSError(
        f"{SHARED_MEMORY} has {size:,.0f} MB, {free:,.0f} MB of them free, too little for batches "
        f"of {batch_bytes / 1e6:,.1f} MB from {loader.workers} workers: start the container with "
        f"--shm-size={math.ceil(most * batch_bytes / 1e6)}m or --ipc=host, or pass loader.workers=0"
    )


def _follow(parent: int, worker: int, workers: int) -> None:
    """Make a worker end with its parent and not before.

    Workers ignore signals to the process group, because they feed the training steps until the run
    has saved a checkpoint. They also end when the run is killed. `parent` is the process id of the
    run, which a worker cannot look up reliably, since the run may be killed first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
