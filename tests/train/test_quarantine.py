import json
import re

import pytest

from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoError, VideoList
from vrl_jax.train.quarantine import Quarantine

SOURCE = VideoList(tuple(Video(f"v{i}", VideoFile(""), {}) for i in range(10)), {})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_video_is_written_down_once_with_its_first_step(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, 0, 0.5)
    quarantine.record("pretrain", SOURCE, [(3, "v3: cut off")], 4)
    quarantine.record("pretrain", SOURCE, [(3, "v3: cut off"), (1, "v1: gone")], 6)
    quarantine.record("test", SOURCE, [(3, "v3: cut off")], 6)
    assert len(quarantine) == 3
    quarantine.close()
    assert lines(path) == [
        {"step": 4, "part": "pretrain", "id": "v3", "reason": "v3: cut off"},
        {"step": 6, "part": "pretrain", "id": "v1", "reason": "v1: gone"},
        {"step": 6, "part": "test", "id": "v3", "reason": "v3: cut off"},
    ]
    resumed = Quarantine(path, 5, 0.5)
    assert len(resumed) == 1 and [line["step"] for line in lines(path)] == [4]
    resumed.record("pretrain", SOURCE, [(1, "v1: gone")], 6)
    assert len(resumed) == 2
    resumed.close()


def test_too_many_stop_the_run_with_a_summary(tmp_path):
    quarantine = Quarantine(tmp_path / "q.jsonl", 0, 0.2)
    quarantine.record("test", SOURCE, [(0, "v0: gone"), (1, "v1: gone")], 0)
    says = "3 of 10 test videos cannot be read, more than loader.max_failed=0.2 allows: gone (2);"
    with pytest.raises(VideoError, match=re.escape(says)):
        quarantine.record("test", SOURCE, [(2, "v2: cut")], 0)
    quarantine.check("train", SOURCE, 2)  # of all hosts
    says = r"3 of 10 train .* allows. See .*q.jsonl and other hosts' lists"
    with pytest.raises(VideoError, match=says):
        quarantine.check("train", SOURCE, 3)
    quarantine.close()
