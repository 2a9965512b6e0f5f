"""Preemption: stop after the current step when the process is signalled."""

import itertools
import signal

import jax
from jax.experimental import multihost_utils

_CALLS = itertools.count(1)  # counts calls over all runs in this program


class PreemptionGuard:
    """Context manager that detects SIGTERM and Ctrl-C, checked once per step.

    With several processes, JAX reports a SIGTERM of any process to all of them at the same step.
    """

    def __init__(self):
        self._signalled, self._single = False, jax.process_count() == 1

    def __enter__(self) -> "PreemptionGuard":
        """Install the handlers; a second signal has its default effect."""
        numbers = (signal.SIGTERM, signal.SIGINT) if self._single else ()
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def should_stop(self) -> bool:
        """Return whether to stop after this step; every process must call this at every step."""
        if self._single:
            return self._signalled
        # JAX agrees on a future call number; step numbers would restart in the next run.
        return multihost_utils.reached_preemption_sync_point(next(_CALLS))

    def _on_signal(self, number, frame):
        self._signalled = True
        signal.signal(number, self._before[number])
