"""Pooled features of boxes in the clips around key frames."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from tqdm import tqdm

from vrl_jax import atomic_files
from vrl_jax.data.data_loader import eval_batches, failed_videos
from vrl_jax.data.datasets import file_lists
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoError, VideoList
from vrl_jax.detection.ava_boxes import Boxes, Instances
from vrl_jax.detection.frame_metrics import roi_align
from vrl_jax.detection.key_frames import KeyFrame, UnreadableVideo, frame_size, letterbox_boxes
from vrl_jax.evaluation.encode_videos import EncodeConfig, compile_encoder, pad_rows
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import feature_file
from vrl_jax.types import Features

POOLING = "mean over time, RoIAlign 7 x 7 with 2 x 2 points, maximum over space"


@dataclass(frozen=True)
class KeyFrameVideos:
    """Video files with key frames.

    Attributes:
      root: folder of the videos, `<id>.mp4` or another video format.
      start: time of the first frame of the files, in seconds (900 for trimmed movies of AVA).
      seconds: whether times are in seconds; else they are frame numbers, from 1.
    """

    root: Path
    start: float
    seconds: bool

    def find(self, keys: Sequence[tuple[str, float]]) -> tuple[VideoList, list[tuple[int, int]]]:
        """Return the clips around key frames as videos, and the shapes of their frames.

        Raises:
          ValueError: videos are absent, or are not video files.
        """
        names = sorted({name for name, _ in keys})
        located = file_lists.require_files(
            file_lists.locate_videos(self.root, [(name, 0, (name,)) for name in names], ("",))
        )
        for file in located.videos:
            if not isinstance(file.media, VideoFile):
                raise ValueError(f"{file.media.path}: key frames need video files, not zips")
        media, shapes, first = {}, {}, self.start if self.seconds else 1
        for file in located.videos:
            try:
                media[file.id], shapes[file.id] = file.media, frame_size(file.media.path)
            except VideoError as error:
                media[file.id], shapes[file.id] = UnreadableVideo(str(error)), (1, 1)
        videos = tuple(
            Video(
                f"{name},{time:04.10g}",
                KeyFrame(media[name], shapes[name], time - first, self.seconds),
                {},
            )
            for name, time in keys
        )
        return VideoList(videos, {}), [shapes[name] for name, _ in keys]


class BoxFeatures(NamedTuple):
    """Boxes with their features.

    Attributes:
      instances: the boxes.
      features: one row per box; NaN where the key frame cannot be read.
      readable: whether the key frame can be read.
    """

    instances: Instances
    features: Float[np.ndarray, "n d"]
    readable: Bool[np.ndarray, "n"]


def encode_boxes(
    model: Pretrained,
    instances: Instances,
    videos: KeyFrameVideos,
    protocol: EncodeConfig,
    about: Mapping[str, Any],
    out: Path,
) -> BoxFeatures:
    """Return the features of boxes and write them to `out`-frames.npz and `out`-boxes.npz.

    Raises:
      ValueError: these files, or parts of them, were made with other settings; videos are absent;
        or more key frames than `loader.max_failed` allows cannot be read.
    """
    about = {**about, "data": {"boxes": hash_boxes(instances)}, "parts": {"batch": protocol.batch}}
    path = out.with_name(f"{out.name}-boxes.npz")
    if path.exists():
        atomic_files.check_same_settings(path, feature_file.read_about(path), about, "--out")
        feature_file.FeatureParts(path, about).remove()  # left by a kill just before the removal
    else:
        parts = feature_file.FeatureParts(path, about)
        _add_parts(model, instances, videos, protocol, parts)
        columns, (video, time) = parts.join(), zip(*instances.keys, strict=True)
        regions = columns.pop("regions")
        frames = {"video": np.array(video), "time": np.array(time), **columns}
        feature_file.write_columns(out.with_name(f"{out.name}-frames.npz"), frames, about)
        boxes = {name: getattr(instances.boxes, name) for name in ("video", "time", "box")}
        feature_file.write_columns(path, {**boxes, "features": regions}, about)
        parts.remove()
    with np.load(path) as columns:
        features = columns["features"]
    return BoxFeatures(instances, features, ~np.isnan(features).any(1))


def _add_parts(
    model: Pretrained,
    instances: Instances,
    videos: KeyFrameVideos,
    protocol: EncodeConfig,
    parts: feature_file.FeatureParts,
) -> None:
    """Encode the remaining key frames and write a part for each batch."""
    clips, shapes = videos.find(instances.keys)
    first = np.searchsorted(instances.frame, np.arange(len(clips) + 1))
    max_boxes = int(np.diff(first).max())
    encode, batch = compile_encoder(model, _pool_boxes), protocol.batch
    done = min(len(parts) * batch, len(clips))
    failures = [reason for reason in parts.join()["unreadable"] if reason] if done else []
    _check_failures(failures, len(clips), protocol, parts)
    if done == len(clips):
        return
    remaining = VideoList(clips.videos[done:], {})
    settings = protocol.sampling, protocol.resize
    batches = eval_batches(remaining, *settings, batch=batch, loader=protocol.loader)
    progress = tqdm(desc="key frames", total=len(clips), initial=done, mininterval=1)
    with contextlib.closing(batches), progress:
        for each in batches:
            numbers = each["index"] + done
            boxes = np.zeros((batch, max_boxes, 4), np.float32)
            counts = first[numbers + 1] - first[numbers]
            for row, number in enumerate(numbers):
                box = instances.boxes.box[first[number] : first[number + 1]]
                boxes[row, : len(box)] = letterbox_boxes(box, shapes[number], protocol.resize)
            frames, regions = encode(pad_rows(each["clips"][:, 0], batch), boxes)
            frames, regions = np.array(frames[: len(numbers)]), np.array(regions)
            reasons = np.full(len(numbers), "", object)
            for number, reason in failed_videos(each):
                row = number - int(each["index"][0])
                frames[row], regions[row], reasons[row] = np.nan, np.nan, reason
                failures.append(reason)
            _check_failures(failures, len(clips), protocol, parts)
            mask = np.arange(max_boxes) < np.pad(counts, (0, batch - len(counts)))[:, None]
            parts.add(features=frames, regions=regions[mask], unreadable=reasons.astype(str))
            progress.update(len(numbers))


def _check_failures(
    reasons: Sequence[str], total: int, protocol: EncodeConfig, parts: feature_file.FeatureParts
) -> None:
    """Raise `ValueError` where too many key frames, or all, could not be read."""
    allowed = protocol.loader.max_failed
    if len(reasons) > allowed * total or len(reasons) == total:
        raise ValueError(
            f"{len(reasons)} of {total} key frames cannot be read (--max-failed={allowed:g}): "
            f"{'; '.join(reasons[:3])}{' ...' * (len(reasons) > 3)}. After fixing the videos, "
            f"delete {parts.folder}"
        )


def _pool_boxes(
    features: Features, boxes: Float[Array, "b p 4"]
) -> tuple[Float[Array, "b t d"], Float[Array, "b p d"]]:
    """Return the features of each frame and of each box."""
    maps = features.stages[-1].astype("float32").mean(1)
    return features.frames, jax.vmap(roi_align)(maps, boxes).max((2, 3))


def hash_boxes(instances: Instances) -> str:
    """Return a hash of key frames and their boxes, independent of the actions."""
    digest = hashlib.sha256(repr(instances.keys).encode())
    for array in (instances.frame, instances.boxes.box):
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_annotations(rows: Boxes, actions: Mapping[int, str]) -> str:
    """Return a hash of boxes with their actions, and of the evaluated actions."""
    digest = hashlib.sha256(repr((rows.keys(), sorted(actions.items()))).encode())
    for array in (rows.box, rows.action):
        digest.update(array.tobytes())
    return digest.hexdigest()
