"""Worker processes that survive crashes and hangs: a failed task returns a `Failure`.

Nothing here imports JAX. Workers are spawned, so programs that use them need the usual
`if __name__ == "__main__":`. Workers end with the process that started them, even if it is killed.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from vrl_jax import check
from vrl_jax.data.video_dataset import VideoError


@dataclass(frozen=True)
class Failure:
    """The result of a failed task.

    Attributes:
      reason: reason of the failure.
    """

    reason: str


class Pool:
    """A pool of processes that call functions.

    Args:
      workers: number of processes.
      time_limit: seconds after which a call fails and its process is killed.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        check.at_least(1, workers=workers)
        check.positive(time_limit=time_limit)
        self._workers, self._time_limit = workers, time_limit
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._idle: list[Connection] = []

    def __enter__(self) -> "Pool":
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all workers."""
        for connection in list(self._processes):
            self._processes[connection].kill()
            self._remove(connection)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple]:
        """Yield (number of the item, result or `Failure`) as tasks finish; items start in order."""
        tasks, busy = deque(enumerate(items)), {}
        while tasks or busy:
            while tasks and len(busy) < self._workers:
                connection = self._idle.pop() if self._idle else self._start()
                try:
                    connection.send((function, tasks[0][1]))
                except OSError:  # the worker died while idle
                    self._remove(connection)
                else:
                    busy[connection] = tasks.popleft()[0]
            for connection in wait(list(busy)):
                number = busy.pop(connection)
                try:
                    result = connection.recv()
                    self._idle.append(connection)
                except (EOFError, OSError):
                    result = self._explain(self._remove(connection))
                yield number, result

    def _start(self) -> Connection:
        connection, child = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(child, self._time_limit), daemon=True)
        process.start()
        child.close()  # so that the pipe ends when the worker dies
        self._processes[connection] = process
        return connection

    def _remove(self, connection: Connection) -> int:
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        return process.exitcode

    def _explain(self, exitcode: int) -> Failure:
        if exitcode == -signal.SIGALRM:
            return Failure(f"not done within {self._time_limit:g} s")
        return Failure(f"the decoder crashed with exit code {exitcode}")


def _serve(connection: Connection, time_limit: float) -> None:
    """Run tasks until the pipe is closed; an alarm signal kills the process at the time limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too and kills workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        while True:
            function, item = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, time_limit)
            try:
                result = function(item)
            except VideoError as error:
                result = Failure(str(error))
            except Exception as error:
                result = Failure(f"{type(error).__name__}: {error}")
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(result)
    except (EOFError, OSError):
        return  # the parent has ended
