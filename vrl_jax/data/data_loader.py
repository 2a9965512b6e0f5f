"""Batches of clips: batch k is a pure function of (seed, k), for any number of workers and hosts.

The pipeline is random access up to the batch, and clips are sampled before batches are divided
among hosts. A run that restarts at step k reads batch k, with any number of processes.

An unreadable video costs no batch and is always reported under `failures`. In training it is
replaced by another video, drawn from the row's own random numbers, so that all other rows stay the
same. In evaluation its clips are black, and the evaluation has to count it as wrong.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np

from vrl_jax import check
from vrl_jax.data import frame_sampling
from vrl_jax.data.datasets.mixture import VideoMixture
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.loading.mixture_order import MixtureOrder
from vrl_jax.data.loading.read_timeout import reject_stop_iteration, run_with_timeout
from vrl_jax.data.loading.worker_batches import iterate_batches
from vrl_jax.data.video_dataset import VideoDataset, VideoError

TRIES = 10  # videos tried for one row; if all of them fail, the data set is likely absent


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

    def iterate(self, dataset: grain.MapDataset, batch_bytes: int) -> Iterator[dict[str, Any]]:
        """Return an iterator over batches of `batch_bytes` that are made ahead of their use."""
        counts = {"workers": self.workers, "threads": self.threads, "buffer": self.buffer}
        return iterate_batches(dataset, batch_bytes, **counts)


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

    Every epoch has each video once, in a new order; epochs may end within a batch. The videos of a
    mixture are in its own order, and each data set has epochs of its own. Call `.close()`
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
    check.at_least(0, start=start)
    dataset = train_dataset(
        source,
        sampling,
        size,
        batch=batch,
        seed=seed,
        host=host,
        hosts=hosts,
        time_limit=loader.time_limit,
    )
    return loader.iterate(dataset[start:], batch // hosts * _clip_bytes(sampling, size))


def train_dataset(
    source: VideoDataset,
    sampling: Sampling,
    size: tuple[int, int],
    *,
    batch: int,
    seed: int,
    host: int = 0,
    hosts: int = 1,
    time_limit: float = 60.0,
) -> grain.MapDataset:
    """Return the batches of `train_batches` by number; each is made when it is accessed."""
    check.at_least(0, seed=seed)
    share = _share(source, batch, host, hosts)
    if isinstance(source, VideoMixture):
        dataset = grain.MapDataset.source(MixtureOrder(source, seed)).seed(seed)
    else:
        dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    dataset = dataset.random_map(_RandomClips(source, sampling, size, time_limit))
    rows = grain.MapDataset.range(len(dataset) // hosts).map(_HostRows(dataset, batch, host, share))
    return rows.batch(share, drop_remainder=True)


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
    return loader.iterate(dataset, min(share, len(source)) * _clip_bytes(sampling, size))


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
            reject_stop_iteration(ValueError, name, error)
        sampling = self.sampling
        if isinstance(self.source, VideoMixture):
            sampling = self.source.adapt_sampling(index, sampling)

        def work():
            with video.media.open() as reader:
                if sampling.fps and not reader.fps > 0:
                    raise VideoError(
                        f"{video.id}: it has no frame rate, which sampling.fps requires"
                    )
                frames = choose(reader.num_frames, reader.fps, sampling)
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
                index, rng = int(spare.integers(*self._peers(index))), spare
        reasons = "; ".join(reason for _, reason in failed[:3])
        raise VideoError(f"{TRIES} videos in a row cannot be read: {reasons} ...")

    def _peers(self, index: int) -> tuple[int, int]:
        """Return the range of the videos that may replace a video: those of its data set."""
        if isinstance(self.source, VideoMixture):
            return self.source.find_part(index)[1:]
        return 0, len(self.source)


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
