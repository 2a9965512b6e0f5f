"""What the benchmarks of compute share: interleaved rounds, and how they are told."""

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
    works: Mapping[str, Callable[[], Any]], rounds: int, times: int = 1
) -> dict[str, list[float]]:
    """Return the mean seconds of a call of each work, one number a round: A B A B ...

    Each is called once before, which compiles. A work returns when its result is there.
    """
    for work in works.values():
        work()
    taken = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(times):
                work()
            taken[name].append((time.perf_counter() - began) / times)
    return taken


def ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    """Return `upper / lower` of every round."""
    return [a / b for a, b in zip(upper, lower, strict=True)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median and, in brackets, the least and the greatest of the rounds."""
    low, middle, high = (f(values) for f in (min, statistics.median, max))
    return f"{middle:{form}} ({low:{form}} - {high:{form}})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def run() -> dict[str, Any]:
    """Return how and where a benchmark runs."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def publish(report: str, numbers: Mapping[str, Any], to: pathlib.Path | None) -> None:
    """Print the report under the command and the machine; write both and the numbers as JSON."""
    here = run()
    print(f"`{here['command']}`, {here['cores']} cores, {here['processor']}\n\n{report}")
    if to:
        to.write_text(json.dumps({**here, **numbers}, indent=2))


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
