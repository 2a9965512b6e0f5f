"""Worker processes that may crash or hang: each failure is an answer, and the rest goes on.

Nothing here imports JAX. Workers are spawned, so a program that uses them needs the usual
`if __name__ == "__main__":`. They end with the process that started them, also when it is killed.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from vrl_jax import check
from vrl_jax.data.dataset import VideoError


@dataclass(frozen=True)
class Failure:
    """What stands in for a result that there is none of.

    Attributes:
      reason: why.
    """

    reason: str


class Pool:
    """Processes that call functions.

    Args:
      workers: how many.
      time_limit: seconds that a call may take; its process is ended then.
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
        """End all workers, whatever they do."""
        for connection in list(self._processes):
            self._processes[connection].kill()
            self._bury(connection)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple]:
        """Yield (number of the item, result or `Failure`) as they come; items start in order."""
        waiting, busy = deque(enumerate(items)), {}
        while waiting or busy:
            while waiting and len(busy) < self._workers:
                connection = self._idle.pop() if self._idle else self._start()
                try:
                    connection.send((function, waiting[0][1]))
                except OSError:  # it died while it had nothing to do
                    self._bury(connection)
                else:
                    busy[connection] = waiting.popleft()[0]
            for connection in wait(list(busy)):
                number = busy.pop(connection)
                try:
                    result = connection.recv()
                    self._idle.append(connection)
                except (EOFError, OSError):
                    result = self._explain(self._bury(connection))
                yield number, result

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._time_limit), daemon=True)
        process.start()
        theirs.close()  # so that the death of the worker shows as the end of the pipe
        self._processes[ours] = process
        return ours

    def _bury(self, connection: Connection) -> int:
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        return process.exitcode

    def _explain(self, exitcode: int) -> Failure:
        if exitcode == -signal.SIGALRM:
            return Failure(f"not done within {self._time_limit:g} s")
        return Failure(f"the decoder ended its process: exit code {exitcode}")


def _serve(connection: Connection, time_limit: float) -> None:
    """Answer until the other end is closed; the system's alarm ends what takes too long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends us
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
        return  # the parent is gone
