"""Interleaved timing rounds and the report that the benchmarks of compute share."""

import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def interleave(
    functions: Mapping[str, Callable[[], Any]], rounds: int, times: int = 1
) -> dict[str, list[float]]:
    """Return the mean seconds per call of each function, by round, in turns: A B A B ...

    Each function is called once before the first round, which compiles it. A function must block
    until its result is ready.
    """
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            for _ in range(times):
                function()
            seconds[name].append((time.perf_counter() - began) / times)
    return seconds


def ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    """Return `upper / lower` for every round."""
    return [a / b for a, b in zip(upper, lower, strict=True)]


def format_spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median of the rounds, with the minimum and maximum in brackets."""
    low, middle, high = (f(values) for f in (min, statistics.median, max))
    return f"{middle:{form}} ({low:{form}} - {high:{form}})"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def describe_machine() -> dict[str, Any]:
    """Return the command of the benchmark and the machine that it runs on."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def publish(report: str, numbers: Mapping[str, Any], path: pathlib.Path | None) -> None:
    """Print the report with command and machine, and write these and the numbers as JSON."""
    machine = describe_machine()
    print(f"`{machine['command']}`, {machine['cores']} cores, {machine['processor']}\n\n{report}")
    if path:
        path.write_text(json.dumps({**machine, **numbers}, indent=2))


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
