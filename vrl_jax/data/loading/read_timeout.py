"""Reading of videos with a time limit.

Nothing here imports JAX.
"""

import queue
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from vrl_jax.data.video_dataset import Video, VideoError

T = TypeVar("T")


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
        reject_stop_iteration(VideoError, f"{video.id}: reading it", error)
    if error:
        raise error
    return result


def reject_stop_iteration(kind: type[Exception], subject: str, error: Exception) -> NoReturn:
    """Raise an error in place of a `StopIteration`, which grain takes for the end of an epoch."""
    raise kind(f"{subject} raised StopIteration, as `next` of no items does") from error


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
