"""Batches from threads or worker processes, which pass them through shared memory.

Nothing here imports JAX.
"""

import gc
import math
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import grain
from absl import flags

from vrl_jax.data.tools.worker_pool import MAIN_GUARD

SHARED_MEMORY = pathlib.Path("/dev/shm")  # workers pass batches through it


def iterate_batches(
    dataset: grain.MapDataset, batch_bytes: int, *, workers: int, threads: int, buffer: int
) -> Iterator[dict[str, Any]]:
    """Return an iterator over batches that are made ahead of their use.

    Args:
      dataset: the batches.
      batch_bytes: size of a batch.
      workers: processes; 0 makes the batches in threads of this one.
      threads: threads per process.
      buffer: batches that each process makes ahead.

    Raises:
      OSError: the workers' batches do not fit into `/dev/shm`; the iterator also if a worker died.
    """
    # The buffer counts batches here; grain's default is 500.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    batches = dataset.to_iter_dataset(options)
    if not workers:
        return iter(batches)
    # The least that is in use: the batch that each worker makes, and one that is consumed.
    least = min(workers, len(dataset)) + 1
    if shared_memory()[0] < least * batch_bytes:
        _refuse_shared_memory(workers, buffer, batch_bytes)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain passes its flags on to workers
    processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=1)
    batches = batches.mp_prefetch(processes, worker_init_fn=partial(_follow, os.getpid()))
    return _from_workers(
        iter(batches), partial(_refuse_shared_memory, workers, buffer, batch_bytes)
    )


def shared_memory() -> tuple[float, float]:
    """Return the free and all bytes of `/dev/shm`; infinite where there is none, as on macOS."""
    if not SHARED_MEMORY.is_dir():
        return math.inf, math.inf
    state = os.statvfs(SHARED_MEMORY)
    return state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize


def _from_workers(
    batches: Iterator[dict[str, Any]], refuse_memory: Callable[[], NoReturn]
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
            refuse_memory()
        remedy = (
            "if the machine ran out of memory, lower loader.workers or loader.buffer"
            if code == -signal.SIGKILL
            else f"{MAIN_GUARD} loader.workers=0"
        )
        raise ChildProcessError(f"a loader worker ended with exit code {code}: {remedy}") from error
    finally:
        batches.close()
        gc.collect()  # the end of a worker is an error whose frames hold its last batch


def _refuse_shared_memory(workers: int, buffer: int, batch_bytes: int) -> NoReturn:
    free, size = (number / 1e6 for number in shared_memory())
    most = workers * (buffer + 4) + 1  # batches, if all wait for the consumer
    raise OSError(
        f"{SHARED_MEMORY} has {size:,.0f} MB, {free:,.0f} MB of them free, too little for batches "
        f"of {batch_bytes / 1e6:,.1f} MB from {workers} workers: start the container with "
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
