"""This machine: the commands, signals and exit codes, and two processes that really train."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from tests.launch.conftest import LAUNCH
from tests.test_main import SMALL, records
from vrl_jax import pretrained

RUN = ["--config=configs/synthetic_bod.py", "--data=Synthetic seed=1"]
MAIN = ["python", "-m", "vrl_jax.main", *RUN]

# Tells what it was given; ends with the code of its process, or when it is asked to stop.
STAND_IN = """#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES" "$@" >>"$HOME/calls.$$"
[ "$1" != -c ] || exit "${NO_GPU:-0}"
[ -n "$CODES" ] || { trap 'exit 143' TERM; while :; do sleep 0.1; done; }
for last; do :; done
exit "$(echo "$CODES" | cut -d, -f"$((${last##*=} + 1))")"
"""


def peer(number, count, port=12355):
    where = f"--coordinator_address=127.0.0.1:{port}"
    return [*MAIN, where, f"--num_processes={count}", f"--process_id={number}"]


def stand_in(shell, **environment):
    shell.fake("nvidia-smi")
    python = shell.place / "bin" / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    shell.environment |= environment


def asked(shell):
    return sorted(path.read_text().strip() for path in shell.place.glob("calls.*"))


def test_one_process_is_the_plain_command(shell):
    assert shell.printed("local.sh", None, "--", *RUN) == [MAIN]


def test_gpus_are_shared_out(shell):
    flags = ["--gpus=0,1,5,7", "--processes=2", "--port=99"]
    look, first, second = shell.printed("local.sh", None, *flags, "--", *RUN)
    assert look[:3] == ["env", "CUDA_VISIBLE_DEVICES=0,1,5,7", "python"]
    assert first == ["env", "CUDA_VISIBLE_DEVICES=0,1", *peer(0, 2, 99)]
    assert second == ["env", "CUDA_VISIBLE_DEVICES=5,7", *peer(1, 2, 99)]


@pytest.mark.parametrize(
    "codes, code", [("0,0", 0), ("0,143", 143), ("143,1", 1), ("134,143", 134)]
)
def test_the_exit_code_is_the_worst(shell, codes, code):
    stand_in(shell, CODES=codes)
    shell("local.sh", "--processes=2", "--gpus=3,1", "--", *RUN, code=code)
    look = '3,1 -c import jax; jax.devices("gpu")'
    first, second = (" ".join([g, *peer(n, 2)[1:]]) for n, g in enumerate(["3", "1"]))
    assert asked(shell) == sorted([look, first, second])


def test_a_jax_without_gpus_is_refused(shell):
    stand_in(shell, CODES="0", NO_GPU="1")
    text = shell("local.sh", "--gpus=0", "--", *RUN, code=2)
    assert "error: JAX finds no GPU: pip install" in text and len(asked(shell)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process(shell, number):
    stand_in(shell)
    process = subprocess.Popen(
        [str(LAUNCH / "local.sh"), "--processes=3", "--", *RUN],
        env={"PATH": f"{shell.place / 'bin'}:{os.environ['PATH']}", "HOME": str(shell.place)},
    )
    deadline = time.time() + 20
    while len(asked(shell)) < 3 and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(number)  # the last may not be known to the script yet
    assert process.wait(timeout=60) == 143


@pytest.mark.slow
def test_two_processes_train_for_real(inherited):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {**SMALL, "train.steps": 2, "train.probe_every": 0, "evaluate.linear.steps": 2}
    changes |= {"train.shard_state": True, "encoder.widths": "(32,64)"}  # large enough to be split
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    place = ["--config=configs/synthetic_bod.py", f"--workdir={inherited.place / 'run'}"]
    text = inherited(
        "local.sh", "--processes=2", f"--port={port}", "--", *place, *flags, timeout=300
    )
    assert text.count("report: ") == 1
    assert [r["step"] for r in records(inherited.place / "run" / "metrics.jsonl")] == [1, 2]
    result = json.loads((inherited.place / "run" / "results" / "linear-static.json").read_text())
    encoder = pretrained.load(inherited.place / "run")
    assert encoder.weight_hash() == result["model"]["weights"]
    environment = (inherited.place / "run" / "environment.json").read_text()
    assert '"processes": "2"' in environment
