"""Preemption: stop after the current step when the process is signalled."""

import itertools
import signal
import time

import jax
from jax.experimental import multihost_utils

_CALLS = itertools.count(1)  # counts calls over all runs in this program

# Seconds after its first arrival for which a signal is ignored. SLURM sends SIGTERM twice within
# milliseconds when it preempts, and again at the time limit; a launcher may repeat Ctrl-C.
REPEATS = {signal.SIGTERM: 600.0, signal.SIGINT: 1.0}


class PreemptionGuard:
    """Context manager that detects SIGTERM and Ctrl-C, checked once per step.

    A repeated signal has its earlier effect only after the time in `REPEATS`: Ctrl-C pressed a
    second time, or SIGTERM ten minutes later.

    With several processes, JAX reports a SIGTERM of any process to all of them at the same step.
    """

    def __init__(self):
        self._arrived: dict[int, float] = {}
        self._single = jax.process_count() == 1

    def __enter__(self) -> "PreemptionGuard":
        """Install the handlers."""
        numbers = REPEATS if self._single else ()
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def should_stop(self) -> bool:
        """Return whether to stop after this step; every process must call this at every step."""
        if self._single:
            return bool(self._arrived)
        # JAX agrees on a future call number; step numbers would restart in the next run.
        return multihost_utils.reached_preemption_sync_point(next(_CALLS))

    def _on_signal(self, number, frame):
        now = time.monotonic()
        if now - self._arrived.setdefault(number, now) > REPEATS[number]:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
