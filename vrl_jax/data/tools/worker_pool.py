"""Worker processes that survive crashes and hangs: a failed task returns a `Failure`.

Nothing here imports JAX. Workers are spawned, so programs that use them need the usual
`if __name__ == "__main__":`; a worker that dies before it is ready is an error of the program, not
of a task. Workers end with the process that started them, even if it is killed.
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

MAIN_GUARD = (
    "a script needs `if __name__ == '__main__':` around the call that starts workers, and one from "
    "stdin needs"
)


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
      workers: number of processes; 0 calls in this process, without a time limit, so a crash of
        a call ends the program.
      time_limit: seconds after which a call fails and its process is killed.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        check.at_least(0, workers=workers)
        check.positive(time_limit=time_limit)
        self._workers, self._time_limit = workers, time_limit
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._ready: set[Connection] = set()
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
        """Yield (number of the item, result or `Failure`) as tasks finish; items start in order.

        Raises:
          ChildProcessError: a worker died before it was ready for its first task.
        """
        if not self._workers:
            for number, item in enumerate(items):
                yield number, _call(function, item)
            return
        tasks, busy = deque(enumerate(items)), {}
        while tasks or busy:
            while tasks and len(busy) < self._workers:
                connection = self._idle.pop() if self._idle else self._start()
                try:
                    connection.send((function, tasks[0][1]))
                except OSError:  # the worker died while idle
                    self._explain(connection)
                else:
                    busy[connection] = tasks.popleft()[0]
            for connection in wait(list(busy)):
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    result = self._explain(connection)
                else:
                    if connection not in self._ready:
                        self._ready.add(connection)
                        continue
                    self._idle.append(connection)
                yield busy.pop(connection), result

    def _start(self) -> Connection:
        connection, child = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(child, self._time_limit), daemon=True)
        process.start()
        child.close()  # so that the pipe ends when the worker dies
        self._processes[connection] = process
        return connection

    def _remove(self, connection: Connection) -> int:
        process = self._processes.pop(connection)
        self._ready.discard(connection)
        connection.close()
        process.join()
        return process.exitcode

    def _explain(self, connection: Connection) -> Failure:
        """Return the failure of a dead worker's task; raise if it was not ready for a task."""
        ready = connection in self._ready
        exitcode = self._remove(connection)
        if not ready:
            raise ChildProcessError(
                f"a worker ended with exit code {exitcode} before its first task: {MAIN_GUARD} "
                "workers=0"
            ) from None
        if exitcode == -signal.SIGALRM:
            return Failure(f"not done within {self._time_limit:g} s")
        return Failure(f"the decoder crashed with exit code {exitcode}")


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Return the result of a call, or its `Failure`."""
    try:
        return function(item)
    except VideoError as error:
        return Failure(str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


def _serve(connection: Connection, time_limit: float) -> None:
    """Run tasks until the pipe is closed; an alarm signal kills the process at the time limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too and kills workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        connection.send(None)  # ready
        while True:
            function, item = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, time_limit)
            result = _call(function, item)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(result)
    except (EOFError, OSError):
        return  # the parent has ended
