"""A data set whose videos hang, crash or are slow, as their names say."""

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vrl_jax.data.datasets.file_lists import Listed
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList


@dataclass(frozen=True)
class Acting(VideoFile):
    @contextmanager
    def open(self):
        name = Path(self.path).name
        while "hang" in name:
            time.sleep(60)
        if "crash" in name:
            os._exit(3)
        if "slow" in name:
            time.sleep(0.05)
        with super().open() as reader:
            yield reader


@dataclass(frozen=True)
class Named(Listed):
    """The lines `split,class,name` of `root/list.txt`."""

    root: str = ""
    mirror: bool = False

    def list_videos(self, part):
        lines = (Path(self.root) / "list.txt").read_text().splitlines()
        rows = [line.split(",") for line in lines]
        videos = tuple(
            Video(name, Acting(f"{self.root}/{name}"), {"class": int(label)})
            for split, label, name in rows
            if split == part
        )
        return VideoList(videos, {"class": ("a", "b")}, self.mirror, reverse_safe=self.mirror)


class Unlisted:
    """What has splits but no list."""

    def pretrain(self):
        raise NotImplementedError

    train = test = pretrain


LINES = [
    "train,1,plain.mp4",
    "train,0,with [odd] name (1)!.avi",
    "train,0,absent.mp4",
    "train,1,damaged.mp4",
    "test,1,matroska.mkv",
    "test,0,vp8.webm",
    "test,1,programme.mpg",
]
NOT_LISTING = 3
