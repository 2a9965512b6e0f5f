"""Commands that run at the same time: their devices, logs, failures and signals."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from vrl_jax import run_queue
from vrl_jax.run_queue import Command

ROOT = pathlib.Path(__file__).parents[1]


def command(folder, program):
    folder.mkdir(parents=True, exist_ok=True)
    return Command([sys.executable, "-c", program], folder)


def answer(monkeypatch, text, code=0):
    """Have the process that is asked for the devices of JAX give this answer."""
    done = subprocess.CompletedProcess([], code, text, text)
    monkeypatch.setattr(run_queue.subprocess, "run", lambda *args, **options: done)


def test_gpus_are_divided(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer(monkeypatch, "gpu 8\n")
    shares = [share["CUDA_VISIBLE_DEVICES"] for share in run_queue.device_shares(4)]
    assert shares == ["0,1", "2,3", "4,5", "6,7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a,5,6")
    answer(monkeypatch, "a warning\ngpu 4\n")
    shares = [share["CUDA_VISIBLE_DEVICES"] for share in run_queue.device_shares(2)]
    assert shares == ["3,GPU-a", "5,6"]
    for jobs in (3, 8):
        with pytest.raises(ValueError, match=f"--jobs must divide the 4 GPUs .* got {jobs}"):
            run_queue.device_shares(jobs)


def test_tpus_are_not_divided_and_cores_are_shared(monkeypatch):
    answer(monkeypatch, "tpu 4\n")
    with pytest.raises(ValueError, match="--jobs must be 1 on TPU, .* got 4"):
        run_queue.device_shares(4)
    answer(monkeypatch, "cpu 1\n")
    assert run_queue.device_shares(3) == [{}, {}, {}]
    answer(monkeypatch, "...\nRuntimeError: busy\n", code=1)
    assert run_queue.device_shares(1) == [{}]  # nothing is asked
    with pytest.raises(ValueError, match="^JAX finds no device: RuntimeError: busy$"):
        run_queue.device_shares(2)


WAIT = """
import os, pathlib, sys, time
pathlib.Path("{mine}").touch()
while not os.path.exists("{other}"): time.sleep(0.01)
print("GPU", os.environ["GPU"])
"""


def test_commands_run_at_the_same_time_and_failures_do_not_end_them(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    a, b, c = (tmp_path / name for name in "abc")
    waits = [(a, b), (b, a)]  # each for the other to start
    commands = [command(x, WAIT.format(mine=x / "here", other=y / "here")) for x, y in waits]
    fails = "import sys; print('10%', end=chr(13)); sys.exit('error: no data')"
    commands += [command(tmp_path / "fails", fails), command(c, "print('third')")]
    lines = []
    failures, stopped = run_queue.run_commands(
        commands, [{"GPU": "0"}, {"GPU": "1"}], True, lines.append
    )
    assert failures == [(tmp_path / "fails", "error: no data")] and not stopped
    logs = [(x / run_queue.LOG).read_text().strip() for x in (a, b, c)]
    assert sorted(logs) == ["GPU 0", "GPU 1", "third"]
    assert len(lines) == 8 and lines[:2] == [f"started {a}, GPU=1", f"started {b}, GPU=0"]
    ends = [line for line in lines if "failed" in line]
    assert re.fullmatch(rf"failed  {tmp_path}/fails after 0:00:\d\d: error: no data", ends[0])
    again = run_queue.run_commands(commands[2:3], [{}], True, lines.append)
    assert again[0] and (tmp_path / "fails" / run_queue.LOG).read_text().count("error:") == 2
    assert run_queue.run_commands(commands[2:3], [{}], False, lines.append) == (
        [(tmp_path / "fails", "exit status 1")], False
    )  # fmt: skip


CHILD = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(143))
os.write(1, b"ready\\n")  # in one write: the pipe is shared with the other commands
time.sleep(60)
"""
PARENT = """
import os, pathlib, sys
from vrl_jax.run_queue import Command, run_commands
commands = [Command([sys.executable, "-c", {child!r}], pathlib.Path(x)) for x in {folders}]
say = lambda line: os.write(1, f"{{line}}\\n".encode())
say(run_commands(commands, [{{}}, {{}}], False, say))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_commands_and_no_more_is_started(tmp_path, number):
    folders = [str(tmp_path / name) for name in "abc"]
    for folder in folders:
        os.mkdir(folder)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(child=CHILD, folders=folders)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    lines = [parent.stdout.readline() for _ in range(4)]
    assert sorted(lines) == ["ready\n", "ready\n", *(f"started {x}\n" for x in folders[:2])]
    locked = command(tmp_path / "a", "pass")
    failures, _ = run_queue.run_commands([locked], [{}], True, print)
    assert failures == [(locked.folder, "another process is running it: wait for it or stop it")]
    os.killpg(parent.pid, number)
    rest = parent.communicate(timeout=30)[0].splitlines()
    assert sorted(line.split(" after")[0] for line in rest[:-1]) == [
        f"stopped {folder}" for folder in folders[:2]
    ]
    assert rest[-1] == "([], True)" and parent.returncode == 0


def test_a_command_that_was_terminated_stops_the_others(tmp_path):
    ends = command(tmp_path / "a", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    sleeps = command(tmp_path / "b", "import time; time.sleep(60)")
    never = command(tmp_path / "c", "open('c', 'w')")
    assert run_queue.run_commands([sleeps, ends, never], [{}, {}], True, print) == ([], True)
    killed = command(tmp_path / "d", "import os; os.kill(os.getpid(), 9)")
    failures, stopped = run_queue.run_commands([killed], [{}], True, print)
    assert failures == [(killed.folder, "exit status 137")] and not stopped
