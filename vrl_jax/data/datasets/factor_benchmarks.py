"""Data sets whose appearance and motion are both known: JHMDB, EgoGestAR, Sprites.

Nothing here imports JAX.
"""

import csv
import functools
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.benchmarks import read_hmdb51
from vrl_jax.data.datasets.class_names import underscores_to_spaces
from vrl_jax.data.datasets.file_lists import (
    Listed,
    locate_videos,
    require_file,
    require_folder,
)
from vrl_jax.data.video.frame_arrays import ArrayReader, MaskFile
from vrl_jax.data.video_dataset import FrameReader, Video, VideoError, VideoList

SPRITE_PARTS = {"body": "body", "bottom": "bottomwear", "top": "topwear", "hair": "hair"}
SPRITE_ROWS = {  # rows of a sheet of 64 x 64 cells, by direction
    "walk": {"front": 10, "left": 9, "right": 11},
    "spellcard": {"front": 2, "left": 1, "right": 3},
    "slash": {"front": 14, "left": 13, "right": 15},
}
SPRITE_COLUMNS = {
    "walk": (8, 1, 2, 3, 4, 5, 6, 7),
    "spellcard": (0, 1, 2, 3, 4, 5, 4, 6),
    "slash": (0, 1, 2, 3, 4, 5, 4, 0),
}
SPRITE_MOTIONS = tuple(f"{action} {way}" for action, ways in SPRITE_ROWS.items() for way in ways)
CELL, VARIANTS, CHARACTERS, TRAIN_CHARACTERS = 64, 6, 6**4, 1000


@dataclass(frozen=True)
class MaskedVideos(VideoList):
    """Videos with foreground masks.

    Attributes:
      mask_folder: folder with `<id without extension>.npz`, see `MaskFile`.
      fps: frames per second of the masks.
    """

    mask_folder: str = ""
    fps: float = 0.0

    def masks(self) -> VideoList:
        """Return the masks as videos, white on the foreground; see `HasMasks`."""
        videos = tuple(
            Video(video.id, MaskFile(self._path(video.id), self.fps), video.labels)
            for video in self.videos
        )
        return VideoList(videos, self.classes, self.mirror_safe)

    def _path(self, id: str) -> str:
        return os.path.join(self.mask_folder, f"{os.path.splitext(id)[0]}.npz")


@dataclass(frozen=True)
class JHMDB(Listed):
    """JHMDB: 928 clips of 21 actions, with the actor's silhouette in every frame.

    Clips are cut from 336 source videos, which the label `source` names: hold them out together
    (`evaluate.cluster=source`). The official splits do not: 48 of the 268 test clips of split 1 are
    of a source video that has training clips as well. They are not HMDB51's splits, whose training
    videos contain most of these test clips.

    Attributes:
      root: folder with `<class>/<name>.<extension>`.
      annotations: folder with `<class>_test_split#.txt`.
      split: 1, 2 or 3.
      masks: folder with `<class>/<name>.npz`, see `MaskFile`; "" for none.
    """

    root: str = ""
    annotations: str = ""
    split: int = 1
    masks: str = ""

    def __post_init__(self) -> None:
        """Check the split."""
        check.one_of((1, 2, 3), split=self.split)

    def list_videos(self, part: str) -> VideoList:
        """Return the clips of the official lists."""
        root = require_folder("root", self.root)
        folder = require_folder("annotations", self.annotations)
        listed = {each: read_hmdb51(folder, each, self.split) for each in ("train", "test")}
        classes, rows = listed[part]
        located = locate_videos(root, ((path, label, (path,)) for path, label in rows), classes)
        sources = tuple(
            sorted({name_source(path) for _, each in listed.values() for path, _ in each})
        )
        numbers = {name: number for number, name in enumerate(sources)}
        videos = tuple(
            replace(video, labels={**video.labels, "source": numbers[name_source(path)]})
            for video, (path, _) in zip(located.videos, rows, strict=True)
        )
        labelled = {**located.classes, "source": sources}
        if not self.masks:
            return replace(located, videos=videos, classes=labelled)
        masks = str(require_folder("masks", self.masks))
        return MaskedVideos(videos, labelled, mask_folder=masks, fps=30.0)


def name_source(path: str) -> str:
    """Return the source video of a clip of HMDB51 or JHMDB, from its path.

    >>> name_source("clap/April_09_clap_u_nm_np1_ba_goo_0.avi")
    'April_09'
    """
    action, name = path.split("/")
    match = re.fullmatch(rf"(.+)_{re.escape(action)}_[a-z]+_[a-z]+_np\d+_.+", name)
    return match[1] if match else name


@dataclass(frozen=True)
class EgoGestAR(Listed):
    """EgoGestAR: a finger draws one of ten gestures, in first-person videos of known scenes.

    Gesture (motion) and scene (appearance) are nearly crossed, so each can be probed on videos that
    are new in the other. Left and right, up and down are mirror images and reversals of each other:
    views are neither flipped nor reversed.

    Attributes:
      root: folder with the videos.
      scenes: file with the tab-separated columns path, gesture, scene and fold; folds are of whole
        scenes.
      factor: "gesture" tests on the scenes of a fold; "scene" tests on half of the gestures, in the
        scenes that have at least `least_gestures`. The label that is not the factor names groups
        to hold out together.
      split: the fold of the test videos, 1 or 2.
      least_gestures: of a scene, where scenes are told apart.
    """

    root: str = ""
    scenes: str = ""
    factor: str = "gesture"
    split: int = 1
    least_gestures: int = 9

    def __post_init__(self) -> None:
        """Check the factor and the fold."""
        check.one_of(("gesture", "scene"), factor=self.factor)
        check.one_of((1, 2), split=self.split)
        check.at_least(1, least_gestures=self.least_gestures)

    def list_videos(self, part: str) -> VideoList:
        """Return the videos of a fold."""
        root = require_folder("root", self.root)
        rows = _read_scenes(require_file("scenes", self.scenes))
        gestures, scenes = (
            tuple(sorted({row[key] for row in rows})) for key in ("gesture", "scene")
        )
        folds = {row["path"]: row["fold"] for row in rows}
        if self.factor == "scene":
            by_scene = {name: {r["gesture"] for r in rows if r["scene"] == name} for name in scenes}
            scenes = tuple(s for s, each in by_scene.items() if len(each) >= self.least_gestures)
            rows = [row for row in rows if row["scene"] in scenes]
            folds = {row["path"]: str(1 + gestures.index(row["gesture"]) % 2) for row in rows}
        rows = [r for r in rows if (folds[r["path"]] == str(self.split)) == (part == "test")]
        listed = ((r["path"], gestures.index(r["gesture"]), (r["path"],)) for r in rows)
        located = locate_videos(root, listed, gestures, mirror_safe=False)
        videos = tuple(
            replace(
                video,
                labels={"gesture": video.labels["class"], "scene": scenes.index(row["scene"])},
            )
            for video, row in zip(located.videos, rows, strict=True)
        )
        classes = {"gesture": gestures, "scene": scenes}
        return replace(located, videos=videos, classes=classes, reverse_safe=False)


@dataclass(frozen=True)
class Sprites:
    """Sprites: drawn characters of four static factors that walk, cast a spell or slash.

    1,296 characters x 9 actions and directions x 8 frames (Li and Mandt, arXiv 1803.02991). A
    single frame tells the action and the direction, so the label `motion` shows where a factor sits
    in an embedding, not that motion is seen. Characters are drawn as they are read.

    Attributes:
      root: folder with the layers: `body`, `bottomwear`, `topwear`, `hair` with `0.png` to `5.png`,
        and `shoes/1.png`, sheets of 64 x 64 cells.
      train_characters: of the 1,000 characters to pretrain and train on.
      test_characters: of the other 296.
    """

    root: str = ""
    train_characters: int = 1000
    test_characters: int = 296

    def __post_init__(self) -> None:
        """Check the numbers of characters."""
        for name, limit in (("train", TRAIN_CHARACTERS), ("test", CHARACTERS - TRAIN_CHARACTERS)):
            count = getattr(self, f"{name}_characters")
            if not 1 <= count <= limit:
                raise ValueError(f"{name}_characters must be from 1 to {limit}, got {count}")

    def pretrain(self) -> VideoList:
        """Return the training characters."""
        return self.train()

    def train(self) -> VideoList:
        """Return the training characters."""
        return self._characters(0, self.train_characters)

    def test(self) -> VideoList:
        """Return the test characters."""
        return self._characters(TRAIN_CHARACTERS, self.test_characters)

    def _characters(self, start: int, count: int) -> VideoList:
        root = str(require_folder("root", self.root))
        order = np.random.RandomState(423).permutation(CHARACTERS)[start : start + count]
        videos = []
        for character in order.tolist():
            digits = tuple(character // VARIANTS**power % VARIANTS for power in (3, 2, 1, 0))
            for number, motion in enumerate(SPRITE_MOTIONS):
                labels = {**dict(zip(SPRITE_PARTS, digits, strict=True)), "motion": number}
                id = f"{motion.replace(' ', '_')}/{''.join(map(str, digits))}"
                videos.append(Video(id, SpriteVideo(root, digits, motion), labels))
        numbers = tuple(map(str, range(VARIANTS)))
        classes = {**dict.fromkeys(SPRITE_PARTS, numbers), "motion": SPRITE_MOTIONS}
        return VideoList(tuple(videos), classes, mirror_safe=False)


@dataclass(frozen=True)
class SpriteVideo:
    """One character in one motion, drawn when it is opened.

    Attributes:
      root: folder of the layers.
      digits: variants of body, bottom, top and hair.
      motion: one of `SPRITE_MOTIONS`.
    """

    root: str
    digits: tuple[int, ...]
    motion: str

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Open for reading; raises `VideoError` where a layer is missing or damaged."""
        files = [
            f"{part}/{n}.png" for part, n in zip(SPRITE_PARTS.values(), self.digits, strict=True)
        ]
        strip = Image.new("RGBA", (8 * CELL, CELL), "black")
        try:
            for file in (*files, "shoes/1.png"):
                strip.alpha_composite(_cut_strip(os.path.join(self.root, file), self.motion))
        except OSError as error:
            raise VideoError(f"{self.root}: {error}") from error
        cells = np.asarray(strip)[..., :3].reshape(CELL, 8, CELL, 3)
        pixels: UInt8[np.ndarray, "n h w 3"] = np.moveaxis(cells, 1, 0)
        yield ArrayReader(f"{self.motion} {self.digits}", pixels, 10.0)


@functools.cache
def _cut_strip(path: str, motion: str) -> Image.Image:
    """Return the eight cells of a motion from a sheet, side by side."""
    action, way = motion.split(" ")
    row, strip = SPRITE_ROWS[action][way] * CELL, Image.new("RGBA", (8 * CELL, CELL))
    with Image.open(path) as sheet:
        for index, column in enumerate(SPRITE_COLUMNS[action]):
            box = (column * CELL, row, (column + 1) * CELL, row + CELL)
            strip.paste(sheet.convert("RGBA").crop(box), (index * CELL, 0))
    return strip


def _read_scenes(path: remote_paths.AnyPath) -> list[dict[str, str]]:
    """Return the rows of a table of paths, gestures, scenes and folds."""
    rows = list(csv.DictReader(io.StringIO(remote_paths.read_text(path)), delimiter="\t"))
    columns = ("path", "gesture", "scene", "fold")
    if not rows or any(column not in rows[0] for column in columns):
        raise ValueError(f"{path} must have videos in the columns {', '.join(columns)}")
    for number, row in enumerate(rows, 2):
        if not all(row[column] for column in columns) or row["fold"] not in ("1", "2"):
            raise ValueError(
                f"{path}, line {number}: must have all columns and fold 1 or 2, got {row}"
            )
    return [{**row, "gesture": underscores_to_spaces(row["gesture"])} for row in rows]
