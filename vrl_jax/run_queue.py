"""Several commands at a time on the devices of this machine, each in a folder of its own."""

import collections
import contextlib
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vrl_jax.report.result_table import format_duration

LOG = "output.log"
LOG_ENVIRONMENT = {
    "TQDM_MININTERVAL": "60",  # progress once a minute
    "TQDM_MAXINTERVAL": "60",
    "PYTHONUNBUFFERED": "1",  # an error is the last line, and not what was printed before it
}
POLL_SECONDS = 0.1
TERMINATED = 128 + signal.SIGTERM
PROBE = "import jax; print(jax.default_backend(), jax.local_device_count())"


class Command(NamedTuple):
    """A command and the folder that it writes to, which exists."""

    args: list[str]
    folder: pathlib.Path


class Failure(NamedTuple):
    """A command that failed.

    Attributes:
      folder: of the command.
      reason: the last line of its log, or its exit status where it has none.
    """

    folder: pathlib.Path
    reason: str


def device_shares(jobs: int) -> list[dict[str, str]]:
    """Return the environment of each of some jobs that run at the same time on this machine.

    GPUs are divided by `CUDA_VISIBLE_DEVICES`; on a CPU the jobs share all cores. The devices are
    those that JAX finds in a process of its own, which then releases them.

    Raises:
      ValueError: the jobs cannot share the devices.
    """
    if jobs == 1:
        return [{}]
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if probe.returncode:
        raise ValueError(f"JAX finds no device: {_last_line(probe.stderr)}")
    backend, count = probe.stdout.split()[-2:]
    if backend == "cpu":
        return [{}] * jobs
    if backend != "gpu":
        raise ValueError(
            f"--jobs must be 1 on {backend.upper()}, where one process takes all chips of its "
            f"host, got {jobs}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (visible.split(",") if visible else list(map(str, range(int(count)))))[: int(count)]
    if len(names) % jobs:
        raise ValueError(f"--jobs must divide the {len(names)} GPUs of this machine, got {jobs}")
    share = len(names) // jobs
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(names[first : first + share])}
        for first in range(0, len(names), share)
    ]


def run_commands(
    commands: Sequence[Command],
    environments: Sequence[Mapping[str, str]],
    logged: bool,
    report: Callable[[str], None],
) -> tuple[list[Failure], bool]:
    """Run commands, one at a time in each environment; one that fails does not end the others.

    SIGTERM, SIGINT and SIGHUP to this process are forwarded to the running commands. After that,
    and after a command that SIGTERM ended, the others are terminated and none is started.

    Args:
      commands: each runs once, in this order.
      environments: variables that each of the simultaneous commands gets.
      logged: whether output is appended to `LOG` in the command's folder, not printed.
      report: is called with a line at the start and at the end of each command.

    Returns:
      the commands that failed, and whether some were stopped or not started.
    """
    waiting, free = collections.deque(commands), list(environments)
    running: dict[subprocess.Popen, tuple[Command, Mapping[str, str], float]] = {}
    failed, signals, stopped = [], [], False

    def forward(number, frame=None):
        signals.append(number)
        for child in running:
            child.send_signal(number)

    with _signal_handler(forward):
        while running or (waiting and not signals):
            while waiting and free and not signals:
                command = waiting.popleft()
                child = _start(command, free[-1], logged)
                if child is None:
                    reason = "another process is running it: wait for it or stop it"
                    report(f"failed  {command.folder}: {reason}")
                    failed.append(Failure(command.folder, reason))
                    continue
                variables = (f", {name}={value}" for name, value in free[-1].items())
                report(f"started {command.folder}{''.join(variables)}")
                running[child] = command, free.pop(), time.monotonic()
                for number in signals:  # that came before the command was in the list
                    child.send_signal(number)
            time.sleep(POLL_SECONDS)
            for child in [child for child in running if child.poll() is not None]:
                command, environment, start = running.pop(child)
                free.append(environment)
                code = child.returncode if child.returncode >= 0 else 128 - child.returncode
                spent = format_duration(time.monotonic() - start)
                if code == TERMINATED and not signals:
                    forward(signal.SIGTERM)
                if not code:
                    report(f"done    {command.folder} after {spent}")
                elif signals:
                    stopped = True
                    report(f"stopped {command.folder} after {spent}")
                else:
                    reason = _reason(command.folder, code, logged)
                    report(f"failed  {command.folder} after {spent}: {reason}")
                    failed.append(Failure(command.folder, reason))
    return failed, stopped or bool(waiting)


@contextlib.contextmanager
def _signal_handler(handler: Callable[[int, object], None]) -> Iterator[None]:
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def _start(
    command: Command, environment: Mapping[str, str], logged: bool
) -> subprocess.Popen | None:
    """Start a command, unless another process has the lock on its folder.

    The command and its children hold the lock until the last of them has ended.
    """
    lock = os.open(command.folder, os.O_RDONLY)
    try:
        if not _lock(lock):
            return None
        with contextlib.ExitStack() as stack:
            output = {}
            if logged:
                log = stack.enter_context(open(command.folder / LOG, "ab"))
                output = {"stdout": log, "stderr": subprocess.STDOUT}
                environment = {**LOG_ENVIRONMENT, **environment}
            return subprocess.Popen(
                command.args,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=[lock],
                **output,
            )
    finally:
        os.close(lock)


def _lock(descriptor: int) -> bool:
    """Return whether the lock is ours, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def _reason(folder: pathlib.Path, code: int, logged: bool) -> str:
    text = (folder / LOG).read_text(errors="replace") if logged else ""
    return _last_line(text) or f"exit status {code}"


def _last_line(text: str) -> str:
    """Return the last line that is not blank, of text with lines that were overwritten."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")
