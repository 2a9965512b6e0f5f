"""A worker that never starts is an error of the program; one that dies later fails its task."""

import os
import sys

import pytest

from tests.data.tools.test_video_index import FAKE, write_set
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.tools import video_index
from vrl_jax.data.tools.worker_pool import Failure, Pool
from vrl_jax.data.video_dataset import VideoError


@pytest.fixture
def unguarded(tmp_path, monkeypatch):
    """Make this program one that workers cannot import, as a script without a main guard."""

    def become(text):
        path = tmp_path / "script.py"
        if text:
            path.write_text(text)
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(path), raising=False)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)

    return become


@pytest.mark.parametrize("script", ["raise RuntimeError('no guard')", "import os; os._exit(0)", ""])
def test_a_program_that_workers_cannot_import_is_an_error(unguarded, script):
    unguarded(script)
    with Pool(2, 10.0) as pool, pytest.raises(ChildProcessError, match="'__main__':.*workers=0"):
        list(pool.map(abs, [1, 2, 3]))


def test_nothing_is_written_then_and_the_next_call_resumes(tmp_path, unguarded, capfd):
    root, out = write_set(tmp_path / "set", ["train,0,a.mp4", "test,1,b.mp4"]), tmp_path / "index"
    source = dataset_lookup.build_dataset(FAKE, [f"root={root}"])
    unguarded("raise RuntimeError('no guard')")
    with pytest.raises(ChildProcessError, match="before its first task"):
        video_index.index_videos(source, out, workers=1)
    (part,) = out.iterdir()  # the settings alone
    assert part.name == video_index.PART and len(part.read_text().splitlines()) == 1
    video_index.main([FAKE, f"root={root}", f"--out={out}", "--workers=0"])
    assert "2 videos, 2 readable" in capfd.readouterr().out


def fail(item):
    if item == "crash":
        os._exit(3)
    if item == "video":
        raise VideoError("it is damaged")
    return 1 / item


def test_a_task_that_fails_is_a_result():
    with Pool(0, 10.0) as pool:
        here = dict(pool.map(fail, [2, "video", 0]))
    assert here[0] == 0.5 and here[1] == Failure("it is damaged")
    assert here[2] == Failure("ZeroDivisionError: division by zero")
    with Pool(1, 60.0) as pool:
        results = dict(pool.map(fail, [2, "crash", 4]))
    assert results == {0: 0.5, 1: Failure("the decoder crashed with exit code 3"), 2: 0.25}
