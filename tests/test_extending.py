"""The evaluation protocol of docs/extending.md runs from a folder of its own."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.test_main import ENVIRONMENT, ROOT


@pytest.mark.slow
def test_the_shown_protocol_runs(tmp_path):
    text = (ROOT / "docs" / "extending.md").read_text()
    files = re.findall(r"`(mylab/\w+\.py)`(?:(?!`mylab).)*?```python\n(.*?)```", text, re.S)
    names = ["mylab/mine.py", "mylab/centroid.py", "mylab/eval_centroid.py"]
    assert [name for name, _ in files] == names
    for name, code in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    command = [
        *(sys.executable, "-m", "vrl_jax.main", "--config=mylab/eval_centroid.py", "--quiet"),
        *("--workdir=run", "--config.data.train_videos=24", "--config.data.test_videos=16"),
        *("--config.protocol.test.clips=1", "--config.protocol.test.size=16"),
        *("--config.protocol.test.frames=4", "--config.loader.workers=0"),
    ]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**ENVIRONMENT, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "run/results").glob("*.json")
    result = json.loads(path.read_text())
    assert result["name"] == result["protocol"]["task"] == "centroid"
    assert result["protocol"]["clips"] == 1 and 0 <= result["value"] <= 1
    assert "centroid" in (tmp_path / "run/report.html").read_text()
