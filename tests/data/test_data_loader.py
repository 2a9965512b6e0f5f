import ast
import itertools
import math
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from tests.data.video.test_video_decoder import read_numbers, write_clip
from vrl_jax.data import data_loader
from vrl_jax.data.data_loader import Loader, eval_batches, eval_row, failed_videos, train_batches
from vrl_jax.data.frame_sampling import Sampling, uniform_clips
from vrl_jax.data.loading import worker_batches
from vrl_jax.data.loading.read_timeout import run_with_timeout
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoError, VideoList

SAMPLING, SIZE, FRAMES = Sampling(frames=4, stride=2, clips=2), (16, 32), 30
VIDEOS = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Videos whose pixels tell their number and the frame's."""
    folder = tmp_path_factory.mktemp("clips")
    names = [folder / f"{video}.{'avi' if video % 3 else 'mp4'}" for video in range(VIDEOS)]
    codecs = ["mpeg4" if video % 3 else "libx264" for video in range(VIDEOS)]
    return VideoList(
        tuple(
            Video(
                str(video),
                VideoFile(write_clip(name, frames=FRAMES, video=video, codec=codec)),
                {"class": video % 3, "person": video},
            )
            for video, (name, codec) in enumerate(zip(names, codecs, strict=True))
        ),
        {"class": ("a", "b", "c"), "person": tuple("0123456")},
    )


def take(batches, count):
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def train(source, count, batch=4, seed=3, **options):
    return take(train_batches(source, SAMPLING, SIZE, batch=batch, seed=seed, **options), count)


def assert_same(some, others):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_batches_hold_the_clips_they_say(source):
    for batch in train(source, 5):
        assert batch["clips"].shape == (4, 2, 4, *SIZE, 3) and batch["clips"].dtype == np.uint8
        assert batch["index"].shape == (4,) and batch["index"].dtype == np.int64
        frames, videos = read_numbers(batch["clips"])
        assert (videos == batch["index"][:, None, None]).all()
        assert (np.diff(frames) == 2).all() and frames.max() < FRAMES


def test_every_epoch_has_each_video_once_in_a_new_order_with_new_clips(source):
    batches = train(source, 3 * VIDEOS, batch=3)
    order = np.concatenate([batch["index"] for batch in batches]).reshape(-1, VIDEOS)
    for epoch in order:
        assert sorted(epoch) == list(range(VIDEOS))
    assert len({tuple(epoch) for epoch in order}) == len(order) == 9
    starts = np.concatenate([read_numbers(batch["clips"])[0][:, :, 0] for batch in batches])
    of_first = starts[order.reshape(-1) == 0]
    assert len({tuple(pair) for pair in of_first}) > 6  # 9 draws of two in 24 starts
    assert (of_first[:, 0] != of_first[:, 1]).sum() > 5


def test_the_seed_decides(source):
    assert_same(train(source, 2), train(source, 2))
    assert any(
        (one["clips"] != other["clips"]).any()
        for one, other in zip(train(source, 2), train(source, 2, seed=4), strict=True)
    )


def test_batch_k_does_not_depend_on_start_or_threads(source):
    batches = train(source, 6)
    assert_same(train(source, 2, start=4), batches[4:])
    assert_same(train(source, 6, loader=Loader(threads=1, buffer=1)), batches)


def test_workers_make_the_same_batches_and_outlive_a_signal_to_all_of_a_run(source):
    loader = Loader(workers=2, buffer=1)
    batches = train_batches(source, SAMPLING, SIZE, batch=4, seed=3, start=2, loader=loader)
    first = [next(batches), next(batches)]  # one of each, so that both have started
    workers = multiprocessing.active_children()
    for worker in workers:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
    assert_same([*first, *take(batches, 12)], train(source, 16)[2:])
    for worker in workers:
        worker.join(10)
    assert len(workers) == 2 and not any(worker.is_alive() for worker in workers)


def test_one_video_is_read_as_evaluation_reads_it(source):
    (batch,) = take(eval_batches(source, SAMPLING, SIZE, batch=VIDEOS), None)
    row = eval_row(source, 5, SAMPLING, SIZE, Loader())
    np.testing.assert_array_equal(row["clips"], batch["clips"][5])
    assert not row["failures"]
    missing = VideoList((Video("lost", VideoFile("absent.mp4"), {}),), {})
    row = eval_row(missing, 0, SAMPLING, SIZE, Loader())
    assert not row["clips"].any() and "absent.mp4" in row["failures"]


def test_hosts_share_a_batch(source):
    whole = train(source, 4)
    halves = [train(source, 4, host=host, hosts=2) for host in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for key in batch:
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), batch[key])


def test_a_batch_may_exceed_the_set(source):
    (batch,) = train(source, 1, batch=2 * VIDEOS)
    assert sorted(batch["index"]) == sorted([*range(VIDEOS)] * 2)
    one = VideoList(source.videos[:1], source.classes)
    assert train(one, 1)[0]["index"].tolist() == [0] * 4


def test_evaluation_sees_each_video_once_in_order(source):
    batches = take(eval_batches(source, SAMPLING, SIZE, batch=3), None)
    assert [len(batch["index"]) for batch in batches] == [3, 3, 1]
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.tolist() == list(range(VIDEOS))
    for batch in batches:
        frames, videos = read_numbers(batch["clips"])
        assert (videos == batch["index"][:, None, None]).all()
        assert (frames == uniform_clips(FRAMES, 25.0, SAMPLING)).all()


def test_shared_memory_too_small_for_the_workers_is_refused(source, monkeypatch):
    size = 4 * SAMPLING.clips * SAMPLING.frames * math.prod(SIZE) * 3
    monkeypatch.setattr(worker_batches, "shared_memory", lambda: (3 * size - 1, 64e6))
    loader = Loader(workers=2)
    words = "/dev/shm has 64 MB.* 2 workers: .*--shm-size=.*--ipc=host.* loader.workers=0"
    with pytest.raises(OSError, match=words):
        train(source, 1, loader=loader)
    with pytest.raises(OSError, match=words):
        eval_batches(source, SAMPLING, SIZE, batch=4, loader=loader)
    assert len(train(source, 1)) == 1  # threads need none
    monkeypatch.setattr(worker_batches, "shared_memory", lambda: (3 * size, 64e6))
    eval_batches(source, SAMPLING, SIZE, batch=4, loader=loader).close()
    everything = len(source) * size // 4  # one batch, which one worker makes
    monkeypatch.setattr(worker_batches, "shared_memory", lambda: (2 * everything, 64e6))
    eval_batches(source, SAMPLING, SIZE, batch=99, loader=loader).close()
    monkeypatch.undo()
    free, whole = worker_batches.shared_memory()
    assert 0 < free <= whole < math.inf
    monkeypatch.setattr(worker_batches, "SHARED_MEMORY", pathlib.Path("/absent"))
    assert worker_batches.shared_memory() == (math.inf, math.inf)


@pytest.mark.parametrize(
    "code, kind, words",
    [
        (-7, OSError, "/dev/shm has .* loader.workers=0"),
        (-9, ChildProcessError, "exit code -9: if the machine ran out of memory, lower loader"),
        (1, ChildProcessError, "exit code 1: a script needs `if __name__ == '__main__':`"),
    ],
)
def test_a_worker_that_dies_is_one_line(code, kind, words):
    def die():
        yield {}
        raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}.")

    batches = die()
    refuse = partial(worker_batches._refuse_shared_memory, 2, 2, 10**6)
    rows = worker_batches._from_workers(batches, refuse)
    assert next(rows) == {}
    with pytest.raises(kind, match=words) as caught:
        next(rows)
    assert "\n" not in str(caught.value)


def test_evaluation_on_hosts_covers_the_set(source):
    indices = []
    for host in range(2):
        batches = eval_batches(source, SAMPLING, SIZE, batch=4, host=host, hosts=2)
        index = np.concatenate([batch["index"] for batch in take(batches, None)])
        assert index.tolist() == list(range(host, VIDEOS, 2))
        indices += index.tolist()
    assert sorted(indices) == list(range(VIDEOS))


@pytest.fixture(scope="module")
def damaged(source, tmp_path_factory):
    """The same videos, of which number 2 is broken and number 5 never ends."""
    bad = tmp_path_factory.mktemp("bad") / "broken.mp4"
    bad.write_bytes(b"nothing")
    media = {2: VideoFile(str(bad)), 5: Hanging()}
    videos = [Video(v.id, media.get(i, v.media), v.labels) for i, v in enumerate(source.videos)]
    return VideoList(tuple(videos), source.classes)


@dataclass(frozen=True)
class Hanging:
    @contextmanager
    def open(self):
        time.sleep(3600)
        yield


def failing(**options):
    return Loader(time_limit=1.5, **options)


def test_in_training_another_video_takes_the_place_and_nothing_else_moves(source, damaged):
    whole = train(source, 4)
    batches = train(damaged, 4, loader=failing(workers=1))
    failures = [failure for batch in batches for failure in failed_videos(batch)]
    assert {number for number, _ in failures} == {2, 5}
    assert {reason.split(": ", 1)[1] for _, reason in failures} == {
        "Invalid data found when processing input",
        "could not be read within 1.5 s",
    }
    for batch, other in zip(batches, whole, strict=True):
        moved = np.isin(other["index"], (2, 5))
        assert not np.isin(batch["index"], (2, 5)).any()
        np.testing.assert_array_equal(batch["failures"] != "", moved)
        for key in ("clips", "index"):
            np.testing.assert_array_equal(batch[key][~moved], other[key][~moved])
        frames, videos = read_numbers(batch["clips"])
        assert (videos == batch["index"][:, None, None]).all()
    again = train(damaged, 2, start=2, loader=failing(threads=1))
    assert_same(again, batches[2:])
    halves = [train(damaged, 4, host=h, hosts=2, loader=failing()) for h in range(2)]
    for batch, *parts in zip(batches, *halves, strict=True):
        both = np.concatenate([part["clips"] for part in parts])
        np.testing.assert_array_equal(both, batch["clips"])


def test_a_data_set_that_is_not_there_stops_training(tmp_path):
    missing = VideoList(
        tuple(Video(str(i), VideoFile(str(tmp_path / f"{i}.mp4")), {}) for i in range(9)), {}
    )
    with pytest.raises(VideoError, match="10 videos in a row cannot be read: .*No such file"):
        train(missing, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_evaluation_nothing_takes_the_place(source, damaged, workers):
    whole = take(eval_batches(source, SAMPLING, SIZE, batch=3), None)
    loader = failing(workers=workers)
    batches = take(eval_batches(damaged, SAMPLING, SIZE, batch=3, loader=loader), None)
    names = [array.shm.name for batch in batches for array in batch.values() if workers]
    assert [[number for number, _ in failed_videos(batch)] for batch in batches] == [[2], [5], []]
    for batch, other in zip(batches, whole, strict=True):
        bad = np.isin(batch["index"], (2, 5))
        np.testing.assert_array_equal(batch["index"], other["index"])
        np.testing.assert_array_equal(batch["clips"][~bad], other["clips"][~bad])
        assert not batch["clips"][bad].any()
    del batches, batch
    paths = [worker_batches.SHARED_MEMORY / name for name in names]
    deadline = time.monotonic() + 10  # workers leave no shared memory: a thread removes it
    while any(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(paths) == 9 * workers and not any(path.exists() for path in paths)


class Stopping:
    """A video, or a data set, that raises StopIteration somewhere."""

    classes, mirror_safe = {}, True
    num_frames, fps = FRAMES, 25.0

    def __init__(self, where):
        self.where = where

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if self.where == "item":
            next(iter(()))
        return Video(str(index), Stopping(self.where if index == 1 else ""), {})

    def open(self):
        if self.where == "open":
            next(iter(()))
        return self.generate()

    @contextmanager
    def generate(self):
        if self.where == "generator":
            next(iter(()))
        yield self

    def read(self, frames, size):
        if self.where == "read":
            next(iter(()))
        return np.zeros((*frames.shape, *size, 3), np.uint8)


@pytest.mark.parametrize("where", ["open", "generator", "read"])
def test_a_stop_iteration_does_not_end_an_epoch(where):
    (batch,) = take(eval_batches(Stopping(where), SAMPLING, SIZE, batch=3), 2)
    ((number, reason),) = failed_videos(batch)
    assert number == 1 and reason.startswith("1: reading it raised StopIteration")
    (batch,) = train(Stopping(where), 1, batch=3)
    assert len(batch["index"]) == 3


def test_a_data_set_that_raises_stop_iteration_is_named():
    for batches in (eval_batches, partial(train_batches, seed=0)):
        with pytest.raises(ValueError, match=r"Stopping\[\d\] raised StopIteration"):
            take(batches(Stopping("item"), SAMPLING, SIZE, batch=3), 1)


def test_a_runtime_error_of_a_video_stays_one(source):
    def work():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="^broken$"):
        run_with_timeout(9.0, source[0], work)


@dataclass(frozen=True)
class Broken:
    reason: str

    @contextmanager
    def open(self):
        raise VideoError(self.reason)
        yield


def test_reasons_survive_a_batch_to_the_last_character():
    # NumPy, and thus grain's batches, cut zeros off the end of texts and bytes.
    reasons = ["short", "zeros at the end\0\0", "\0", "", "größer"]
    videos = tuple(Video(f"{i}\0", Broken(reason), {}) for i, reason in enumerate(reasons))
    (batch,) = take(eval_batches(VideoList(videos, {}), SAMPLING, SIZE, batch=5), None)
    assert failed_videos(batch) == list(enumerate(reasons))


def test_what_cannot_be_batched_is_refused(source):
    with pytest.raises(ValueError, match="batch must be a multiple of the 2 hosts, got 3"):
        train(source, 1, batch=3, hosts=2)
    with pytest.raises(ValueError, match="host must be one of 0, 1, got 2"):
        eval_batches(source, SAMPLING, SIZE, batch=2, host=2, hosts=2)
    with pytest.raises(ValueError, match="has no videos"):
        train(VideoList((), {}), 1)
    with pytest.raises(ValueError, match="start must be at least 0"):
        train(source, 1, start=-1)
    with pytest.raises(ValueError, match="buffer must be at least 1"):
        Loader(buffer=0)
    with pytest.raises(ValueError, match=r"max_failed must lie in \[0, 1\], got 2"):
        Loader(max_failed=2)


ORPHAN = """
import sys
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.data_loader import Loader, train_batches
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Video, VideoList
if __name__ == "__main__":
    source = VideoList((Video("0", VideoFile(sys.argv[1]), {}),), {})
    batches = train_batches(
        source, Sampling(4, 1, 1), (8, 8), batch=1, seed=0, loader=Loader(workers=1)
    )
    next(batches)
    print("ready", flush=True)
    for _ in batches:
        pass
"""


def test_workers_do_not_outlive_a_killed_run(source, tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    run = subprocess.Popen(
        [sys.executable, str(script), source[0].media.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=pathlib.Path(data_loader.__file__).parents[2],
        env={"PYTHONPATH": str(pathlib.Path(data_loader.__file__).parents[2])},
    )
    with run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGKILL)
        # The worker holds the pipe's other end: it closes when the worker has gone.
        run.communicate(timeout=30)
    assert run.returncode == -signal.SIGKILL


def test_what_workers_import_does_not_import_jax():
    folder = pathlib.Path(data_loader.__file__).parents[1]
    visited, queue = (
        set(),
        [folder / "data" / "data_loader.py", folder / "data" / "datasets" / "video_folders.py"],
    )
    while queue:
        path = queue.pop()
        visited.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            assert not {name.split(".")[0] for name in names} & {"jax", "flax", "optax"}, path
            files = [folder.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names]
            queue += [file for file in files if file.is_file() and file not in visited]
    assert {path.stem for path in visited} >= {
        "frame_sampling",
        "video_decoder",
        "video_folders",
        "data_loader",
        "video_dataset",
    }
