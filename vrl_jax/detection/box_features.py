"""Features of boxes in key frames: of the clip around each key frame, cut out and pooled."""

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

from vrl_jax import files
from vrl_jax.data.dataset import Video, VideoError, VideoList
from vrl_jax.data.datasets import file_lists
from vrl_jax.data.loader import eval_batches, failed_videos
from vrl_jax.data.video.decode import VideoFile
from vrl_jax.detection.ava import Boxes, Instances
from vrl_jax.detection.keyframes import KeyFrame, UnreadableVideo, frame_size, letterbox_boxes
from vrl_jax.detection.metrics import roi_align
from vrl_jax.evaluation.encode import EncodeConfig, compile_encoder, pad_rows
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import feature_file
from vrl_jax.types import Features

POOLING = "mean over time, RoIAlign 7 x 7 with 2 x 2 points, maximum over space"


@dataclass(frozen=True)
class KeyFrameVideos:
    """Where key frames are.

    Attributes:
      root: folder of the videos, `<id>.mp4` or any other video.
      start: the time at which the files begin, seconds (900 where AVA's movies were cut).
      seconds: whether times are seconds; else they are numbers of frames, from 1.
    """

    root: Path
    start: float
    seconds: bool

    def find(self, keys: Sequence[tuple[str, float]]) -> tuple[VideoList, list[tuple[int, int]]]:
        """Return the key frames' surroundings, and the shapes of their pictures.

        Raises:
          ValueError: videos are absent, or are no video files.
        """
        names = sorted({name for name, _ in keys})
        files = file_lists.require_files(
            file_lists.locate_videos(self.root, [(name, 0, (name,)) for name in names], ("",))
        )
        for file in files.videos:
            if not isinstance(file.media, VideoFile):
                raise ValueError(f"{file.media.path}: key frames are of video files, not of zips")
        media, shapes, first = {}, {}, self.start if self.seconds else 1
        for file in files.videos:
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
    """The boxes of a part with their features.

    Attributes:
      found: the boxes.
      features: a row a box; nan where its key frame cannot be read.
      read: whether it can.
    """

    found: Instances
    features: Float[np.ndarray, "n d"]
    read: Bool[np.ndarray, "n"]


def encode_boxes(
    model: Pretrained,
    found: Instances,
    footage: KeyFrameVideos,
    protocol: EncodeConfig,
    about: Mapping[str, Any],
    out: Path,
) -> BoxFeatures:
    """Return the features of boxes; they are in `out`-frames.npz and `out`-boxes.npz then.

    Raises:
      ValueError: these files, or parts of them, were made in another way; videos are absent, or
        more key frames than `loader.max_failed` allows cannot be read.
    """
    about = {**about, "data": {"boxes": hash_boxes(found)}, "parts": {"batch": protocol.batch}}
    path = out.with_name(f"{out.name}-boxes.npz")
    if path.exists():
        files.check_same_settings(path, feature_file.read_about(path), about, "--out")
        feature_file.FeatureParts(path, about).remove()  # it may have been killed just before that
    else:
        parts = feature_file.FeatureParts(path, about)
        _add_parts(model, found, footage, protocol, parts)
        columns, (video, time) = parts.join(), zip(*found.keys, strict=True)
        regions = columns.pop("regions")
        frames = {"video": np.array(video), "time": np.array(time), **columns}
        feature_file.write_columns(out.with_name(f"{out.name}-frames.npz"), frames, about)
        boxes = {name: getattr(found.boxes, name) for name in ("video", "time", "box")}
        feature_file.write_columns(path, {**boxes, "features": regions}, about)
        parts.remove()
    with np.load(path) as columns:
        features = columns["features"]
    return BoxFeatures(found, features, ~np.isnan(features).any(1))


def _add_parts(
    model: Pretrained,
    found: Instances,
    footage: KeyFrameVideos,
    protocol: EncodeConfig,
    parts: feature_file.FeatureParts,
) -> None:
    """Encode the key frames that no part has, a part for each batch."""
    source, shapes = footage.find(found.keys)
    first = np.searchsorted(found.frame, np.arange(len(source) + 1))
    most = int(np.diff(first).max())
    encode, batch = compile_encoder(model, _cut_out), protocol.batch
    done = min(len(parts) * batch, len(source))
    unread = [reason for reason in parts.join()["unreadable"] if reason] if done else []
    _refuse_unread(unread, len(source), protocol, parts)
    if done == len(source):
        return
    left = VideoList(source.videos[done:], {})
    settings = protocol.sampling, protocol.resize
    batches = eval_batches(left, *settings, batch=batch, loader=protocol.loader)
    progress = tqdm(desc="key frames", total=len(source), initial=done, mininterval=1)
    with contextlib.closing(batches), progress:
        for each in batches:
            numbers = each["index"] + done
            boxes = np.zeros((batch, most, 4), np.float32)
            counts = first[numbers + 1] - first[numbers]
            for row, number in enumerate(numbers):
                own = found.boxes.box[first[number] : first[number + 1]]
                boxes[row, : len(own)] = letterbox_boxes(own, shapes[number], protocol.resize)
            frames, regions = encode(pad_rows(each["clips"][:, 0], batch), boxes)
            frames, regions = np.array(frames[: len(numbers)]), np.array(regions)
            reasons = np.full(len(numbers), "", object)
            for number, reason in failed_videos(each):
                row = number - int(each["index"][0])
                frames[row], regions[row], reasons[row] = np.nan, np.nan, reason
                unread.append(reason)
            _refuse_unread(unread, len(source), protocol, parts)
            kept = np.arange(most) < np.pad(counts, (0, batch - len(counts)))[:, None]
            parts.add(features=frames, regions=regions[kept], unreadable=reasons.astype(str))
            progress.update(len(numbers))


def _refuse_unread(
    reasons: Sequence[str], total: int, protocol: EncodeConfig, parts: feature_file.FeatureParts
) -> None:
    """Raise `ValueError` where too many of the key frames could not be read, or none could."""
    allowed = protocol.loader.max_failed
    if len(reasons) > allowed * total or len(reasons) == total:
        raise ValueError(
            f"{len(reasons)} of {total} key frames cannot be read (--max-failed={allowed:g}): "
            f"{'; '.join(reasons[:3])}{' ...' * (len(reasons) > 3)}. When that "
            f"is mended, delete {parts.folder}"
        )


def _cut_out(
    features: Features, boxes: Float[Array, "b p 4"]
) -> tuple[Float[Array, "b t d"], Float[Array, "b p d"]]:
    """Return the features of every frame, and of every box."""
    maps = features.stages[-1].astype("float32").mean(1)
    return features.frames, jax.vmap(roi_align)(maps, boxes).max((2, 3))


def hash_boxes(found: Instances) -> str:
    """Return the identity of key frames and their boxes, whatever is done in them."""
    digest = hashlib.sha256(repr(found.keys).encode())
    for array in (found.frame, found.boxes.box):
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_annotations(rows: Boxes, actions: Mapping[int, str]) -> str:
    """Return the identity of boxes with their actions, and of the actions that count."""
    digest = hashlib.sha256(repr((rows.keys(), sorted(actions.items()))).encode())
    for array in (rows.box, rows.action):
        digest.update(array.tobytes())
    return digest.hexdigest()
