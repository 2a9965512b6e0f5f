"""One host of a slice: a run that is started, watched and stopped, with a stand-in for Python."""

import shlex
import subprocess
import time

import pytest

from tests.launch.conftest import LAUNCH

ROOT = LAUNCH.parent
STAND_IN = """#!/bin/sh
# Runs until it is asked to stop, or ends with the code of its last argument.
echo "$(pwd)" "$@"
trap 'echo saved; exit 143' TERM
for last; do :; done
case $last in --code=*) exit "${last#--code=}" ;; esac
while :; do sleep 0.1; done
"""


@pytest.fixture
def host(shell):
    """A host on which something that answers like Python is installed."""
    python = shell.place / "vrl_venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    yield shell
    shell("worker.sh", "stop")


def until_it_ends(host):
    deadline = time.time() + 20
    while (said := host("worker.sh", "state")) == "running\n" and time.time() < deadline:
        time.sleep(0.05)
    return said


def test_a_run_outlives_the_command_that_started_it(host):
    assert host("worker.sh", "state") == "gone\n"
    host("worker.sh", "start", "--config=a.py", "--data=Prepared root=/x y")
    assert host("worker.sh", "state") == "running\n"
    assert "a run is in progress" in host("worker.sh", "start", "--config=a.py", code=2)
    host("worker.sh", "stop")
    assert until_it_ends(host) == "exited 143\n"
    text = host("worker.sh", "logs")
    said = "-m vrl_jax.main --distributed --config=a.py --data=Prepared root=/x y"
    assert f"{ROOT} {said}\nsaved\n" == text


@pytest.mark.parametrize("code", [0, 1, 134])
def test_the_exit_code_is_kept_until_the_next_start(host, code):
    host("worker.sh", "start", "--config=a.py", f"--code={code}")
    assert until_it_ends(host) == f"exited {code}\n"
    host("worker.sh", "start", "--config=a.py")
    assert host("worker.sh", "state") == "running\n"


def test_a_run_that_has_just_ended_is_not_gone(host):
    records = host.place / "vrl_run"
    records.mkdir()
    with subprocess.Popen(["true"]) as ended:
        (records / "pid").write_text(str(ended.pid))
    (host.place / "bin").mkdir()
    sleep = host.place / "bin" / "sleep"  # while it waits, the code arrives
    sleep.write_text(f"#!/bin/sh\necho 7 >{records}/code\n")
    sleep.chmod(0o755)
    assert host("worker.sh", "state") == "exited 7\n"


def test_a_number_of_another_process_is_no_run(host):
    (host.place / "vrl_run").mkdir()
    with subprocess.Popen(["sleep", "60"]) as other:
        (host.place / "vrl_run" / "pid").write_text(str(other.pid))
        assert host("worker.sh", "state") == "gone\n"
        host("worker.sh", "stop")
        assert other.poll() is None
        other.kill()


def test_install_brings_its_own_python(shell):
    uv, venv = shell.place / ".local" / "bin" / "uv", shell.place / "vrl_venv"
    first, *others = shell.printed("worker.sh", None, "install")
    assert first == ["bash", "-c", "curl -LsSf https://astral.sh/uv/install.sh | sh"]
    uv.parent.mkdir(parents=True)
    uv.write_text(f'#!/bin/sh\necho {uv} "$@"\npwd\n')
    uv.chmod(0o755)
    assert shell.printed("worker.sh", None, "install") == others
    make, install = others
    assert make[1:] == ["venv", "--quiet", "--allow-existing", "--python=3.12", str(venv)]
    wanted = [str(uv), "pip", "install", "--quiet", f"--python={venv}"]
    assert install == [*wanted, "-c", "constraints.txt", "-e", ".[tpu,gcs]"]
    done = shell("worker.sh", "install").splitlines()
    assert done == [" ".join(make), str(ROOT), " ".join(install), str(ROOT)]


def test_start_in_a_dry_run(shell):
    python = str(shell.place / "vrl_venv" / "bin" / "python")
    line = shell("worker.sh", "--dry-run", "start", "--config=a.py", "--data=Prepared root=/x")
    assert shlex.split(line) == [
        *(python, "-m", "vrl_jax.main", "--distributed", "--config=a.py"),
        "--data=Prepared root=/x",
    ]
    assert not (shell.place / "vrl_run").exists()
