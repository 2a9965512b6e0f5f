"""A run on a mixture of Parquet, a tar and a list without labels: killed, and on eight devices."""

import re
import signal
import time

import numpy as np
import pytest

from tests.data.datasets.test_record_shards import write_tar
from tests.data.datasets.test_table_shards import make_table, write_parquet
from tests.data.video.test_video_decoder import write_clip
from tests.profiling.test_step_trace import read_steps
from tests.test_main import EIGHT_DEVICES, finish, launch, records, weights

VIDEOS = 12
SETTINGS = {
    **{f"data__{part}_videos": None for part in ("pretrain", "train", "test")},
    **{"sampling__stride": 1, "loader__threads": 1, "train__probe_every": 0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    paths = [root / f"{number}.mp4" for number in range(VIDEOS)]
    for number, path in enumerate(paths):
        write_clip(path, frames=20, video=number)
    clips = [path.read_bytes() for path in paths]
    for shard, numbers in enumerate(([0, 1, 2], [3, 4])):
        write_parquet(root / f"set/train-{shard:05}-of-00002.parquet", make_table(numbers, clips))
    write_tar(root / "x.tar", **{f"{n}.mp4": clips[n] for n in (5, 6, 7)})
    (root / "list.txt").write_text("".join(f"{n}.mp4\n" for n in range(8, VIDEOS)))
    return (
        f"--data=Mixture 'HuggingFaceFolder root={root}/set weight=2 name=parquet' "
        f"'WebDataset train_shards={root}/x.tar name=tar' "
        f"'ListFile root={root} train_list={root}/list.txt weight=3 stride=2 name=list'"
    )


@pytest.mark.slow
def test_a_mixture_killed_and_resumed_is_bit_exact_and_eight_devices_do_the_same(data, tmp_path):
    whole, killed, eight = tmp_path / "whole", tmp_path / "killed", tmp_path / "eight"
    text = finish(launch("folders_bod", whole, data, "--profile=2:3", **SETTINGS))
    assert "no probes of labels: " in text and "has no split 'test', but train" in text
    assert read_steps(whole / "profile") == {"2", "3"}
    process = launch("folders_bod", killed, data, **SETTINGS)
    deadline = time.time() + 400
    while time.time() < deadline and process.poll() is None:
        if (killed / "checkpoints" / "3").is_dir():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text = finish(launch("folders_bod", killed, data, loader__workers=2, **SETTINGS))
    assert re.search(r"step [3-8] of 8", text)
    for one, other in zip(weights(whole, 8), weights(killed, 8), strict=True):
        np.testing.assert_array_equal(one, other)
    names = ("step", "loss", "videos/parquet", "videos/tar", "videos/list")
    finish(launch("folders_bod", eight, data, environment=EIGHT_DEVICES, **SETTINGS))
    logs = [
        [[r[name] for name in names] for r in records(workdir / "metrics.jsonl")]
        for workdir in (whole, killed, eight)
    ]
    assert logs[0] == logs[1]
    np.testing.assert_allclose(logs[0], logs[2], rtol=1e-3)
    assert [sum(row[2:]) for row in logs[0]] == [8 * step for step in range(1, 9)]
    np.testing.assert_allclose(logs[0][-1][2:], np.array([2, 1, 3]) / 6 * 64, atol=2)
