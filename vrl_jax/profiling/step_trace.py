"""Profiler traces of some steps of a run."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax


def parse_steps(text: str) -> range:
    """Return the steps of "FIRST:LAST", counted from 1 and both included; none for "".

    Raises:
      ValueError: another format, or no step.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if text and not (match and 1 <= int(match[1]) <= int(match[2])):
        raise ValueError(f"profile must be FIRST:LAST, such as 10:15, got {text!r}")
    return range(int(match[1]), int(match[2]) + 1) if match else range(0)


class StepTrace:
    """Context manager that traces some steps of a run on the first process.

    A trace that is still open at the exit is written as well.

    Args:
      steps: see `parse_steps`.
      folder: gets `plugins/profile/<time>/`, for TensorBoard and Perfetto.
    """

    def __init__(self, steps: range, folder: pathlib.Path):
        self._steps, self._folder = steps if jax.process_index() == 0 else range(0), folder
        self._number, self._open = 0, False

    def __enter__(self) -> "StepTrace":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Write a trace that is still open."""
        if self._open:
            self._stop()

    def wrap(self, step: Callable[..., Any], log: Callable[[str], None]) -> Callable[..., Any]:
        """Return the step (state, batch) -> outputs, traced when due.

        Args:
          step: the function.
          log: receives one line with the folder.
        """
        if not self._steps:
            return step

        def traced(state: Any, batch: Any) -> Any:
            if not self._number:
                self._number = int(state.step)
            self._number += 1
            if self._number in self._steps and not self._open:
                jax.profiler.start_trace(self._folder)
                self._open = True
            with jax.profiler.StepTraceAnnotation("train", step_num=self._number):
                outputs = step(state, batch)
            if self._open and self._number == self._steps[-1]:
                jax.block_until_ready(outputs)
                self._stop()
                log(f"profile of the steps to {self._number}: {self._folder}")
            return outputs

        return traced

    def _stop(self) -> None:
        self._open = False
        jax.profiler.stop_trace()
