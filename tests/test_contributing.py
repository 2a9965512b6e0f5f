"""The method that CONTRIBUTING shows passes its test and trains, in a folder of its own."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.test_main import ENVIRONMENT, ROOT, SMALL

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Write the files that the text shows, under the names that it gives them."""
    shown = re.findall(r"`(mylab/\w+\.py)`(?:(?!`mylab).)*?```python\n(.*?)```", TEXT, re.S)
    assert [name for name, _ in shown] == [
        "mylab/slow.py",
        "mylab/synthetic_slow.py",
        "mylab/test_slow.py",
    ]
    for name, code in shown:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        assert len(code.splitlines()) <= 60
    return tmp_path


def start(folder, *arguments):
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_shown_method_passes_its_test_and_trains(folder):
    done = start(folder, "pytest", "-q", "mylab/test_slow.py")
    assert done.returncode == 0, done.stdout
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    done = start(
        folder,
        "vrl_jax.main",
        "--config=mylab/synthetic_slow.py",
        "--workdir=run",
        "--quiet",
        *flags,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert all("loss/slowness" in record for record in records if "loss" in record)
    assert (folder / "run/report.html").exists()
