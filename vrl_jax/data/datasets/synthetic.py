"""Rendered videos with known static and dynamic factors.

A textured, colored shape moves over a still background on a torus. The *static* class determines
shape, texture, hue and background. The *dynamic* class determines only the trajectory: all motions
have the same speed and uniformly distributed positions, so that no single frame reveals the class.
Hues vary slightly; sizes, speeds, starts and phases vary freely. Mirroring a video changes its
dynamic class.

All factors are known, so the same videos are also available with one factor changed, and as masks
of the shape.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from vrl_jax import check
from vrl_jax.data.video_dataset import Video

SHAPES = ("disc", "square", "triangle", "ring", "cross", "diamond", "bar", "heart")
MOTIONS = (
    "right",
    "left",
    "up",
    "down",
    "clockwise",
    "counterclockwise",
    "to and fro",
    "up and down",
)
SPEED = 0.06  # per frame, as a fraction of the canvas side
TURN = 0.12  # radius of circles and half-length of shuttles, as a fraction of the canvas side
PURPOSES = ("pretrain", "train", "test")
VARIANTS = ("videos", "masks", "another static", "another dynamic")


@dataclass(frozen=True)
class Synthetic:
    """Rendered videos; the two factors are correlated in the pretraining part only.

    Attributes:
      pretrain_videos: number of unlabelled videos to pretrain on.
      train_videos: number of labelled training videos, factors independent.
      test_videos: number of test videos, factors independent.
      classes: number of static classes and of dynamic classes, at most 8.
      cooccurrence: probability in the pretraining part that the dynamic class of a video equals its
        static class; 1 / classes makes them independent.
      frames: length of a video.
      seed: seed of the data set.
    """

    benchmark: ClassVar[str] = ""

    pretrain_videos: int = 4096
    train_videos: int = 1024
    test_videos: int = 1024
    classes: int = 8
    cooccurrence: float = 0.9
    frames: int = 40
    seed: int = 0

    def __post_init__(self):
        check.at_least(2, classes=self.classes, frames=self.frames)
        check.at_least(1, pretrain_videos=self.pretrain_videos, test_videos=self.test_videos)
        check.at_least(1, train_videos=self.train_videos)
        check.fraction(cooccurrence=self.cooccurrence)
        if self.classes > len(MOTIONS):
            raise ValueError(f"classes must be at most {len(MOTIONS)}, got {self.classes}")

    def pretrain(self) -> "Scenes":
        """Return the videos to pretrain on, factors correlated."""
        return Scenes(self, "pretrain", self.pretrain_videos, self.cooccurrence)

    def train(self) -> "Scenes":
        """Return the labelled training videos, factors independent."""
        return Scenes(self, "train", self.train_videos, 1 / self.classes)

    def test(self) -> "Scenes":
        """Return the test videos, factors independent."""
        return Scenes(self, "test", self.test_videos, 1 / self.classes)


@dataclass(frozen=True)
class Scenes:
    """One part of the rendered videos; video `i` is a pure function of (seed, purpose, i).

    Attributes:
      config: the data set.
      purpose: "pretrain", "train" or "test".
      length: number of videos.
      cooccurrence: see `Synthetic`.
      mirror_safe: see `VideoDataset`.
      variant: "videos", "masks", or one factor changed: "another static", "another dynamic".
    """

    config: Synthetic
    purpose: str
    length: int
    cooccurrence: float
    mirror_safe: bool = False
    variant: str = "videos"

    def __post_init__(self) -> None:
        """Check the variant."""
        check.one_of(VARIANTS, variant=self.variant)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Return the class names of both factors."""
        count = self.config.classes
        return {"static": SHAPES[:count], "dynamic": MOTIONS[:count]}

    def __len__(self) -> int:
        """Return the number of videos."""
        return self.length

    def __getitem__(self, index: int) -> Video:
        """Draw video `index`."""
        if not 0 <= index < self.length:
            raise IndexError(f"video {index} of {self.length}")
        rng = np.random.default_rng((self.config.seed, PURPOSES.index(self.purpose), index))
        count = self.config.classes
        static = int(rng.integers(count))
        other = int((static + rng.integers(1, count)) % count)
        dynamic = static if rng.random() < self.cooccurrence else other
        scene = Scene(
            static=static,
            dynamic=dynamic,
            frames=self.config.frames,
            start=tuple(rng.random(2).tolist()),
            phase=float(rng.random()),
            speed=float(rng.uniform(0.8, 1.2)),
            radius=float(rng.uniform(0.15, 0.2)),
            hues=tuple(((static / count + rng.normal(0, 0.03, 2)) % 1).tolist()),
        )
        scene = _make_variant(scene, self.variant, int(rng.integers(1, count)), count)
        labels = {"static": scene.static, "dynamic": scene.dynamic}
        return Video(f"{self.purpose}-{index:06d}", scene, labels)

    def masks(self) -> "Scenes":
        """Return the masks of the shapes as videos, white on the shape."""
        return replace(self, variant="masks")

    def twins(self) -> tuple["Scenes", "Scenes"]:
        """Return the videos with another dynamic class, then those with another static class."""
        return replace(self, variant="another dynamic"), replace(self, variant="another static")

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"Scenes({self.purpose}, {self.length} videos)"


@dataclass(frozen=True)
class Scene:
    """Parameters of one video: lengths in canvas sides, angles and phases in turns.

    A masked scene renders the coverage of each pixel by the shape.
    """

    static: int
    dynamic: int
    frames: int
    start: tuple[float, float]
    phase: float
    speed: float
    radius: float
    hues: tuple[float, float]
    fps: float = 25.0
    masked: bool = False

    @property
    def num_frames(self) -> int:
        """Return the length of the video."""
        return self.frames

    @contextlib.contextmanager
    def open(self):
        """Open for reading: a scene reads itself."""
        yield self

    def read(
        self, frames: Int[np.ndarray, "k t"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "k t h w 3"]:
        """Render frames at (height, width) `size`."""
        flat = frames.reshape(-1)
        clip = (render_mask if self.masked else render_frames)(self, flat, size)
        return clip.reshape(*frames.shape, *clip.shape[1:])


def _make_variant(scene: Scene, variant: str, step: int, count: int) -> Scene:
    """Return a variant of a scene; another class is `step` further, modulo `count`."""
    match variant:
        case "masks":
            return replace(scene, masked=True)
        case "another dynamic":
            return replace(scene, dynamic=(scene.dynamic + step) % count)
        case "another static":
            hues = tuple((hue + step / count) % 1 for hue in scene.hues)
            return replace(scene, static=(scene.static + step) % count, hues=hues)
    return scene


def shape_centre(scene: Scene, frames: Int[np.ndarray, "t"]) -> Float[np.ndarray, "t 2"]:
    """Return the center of the shape (x right, y down) on the unit torus in each frame."""
    way = scene.speed * SPEED * frames
    angle = way / TURN + math.tau * scene.phase
    shuttle = TURN * (np.abs(4 * ((way / (4 * TURN) + scene.phase) % 1) - 2) - 1)
    none = np.zeros_like(way)
    offset = (
        (way, none),
        (-way, none),
        (none, -way),
        (none, way),
        (TURN * np.cos(angle), TURN * np.sin(angle)),
        (TURN * np.cos(angle), -TURN * np.sin(angle)),
        (shuttle, none),
        (none, shuttle),
    )[scene.dynamic]
    return (np.stack(offset, -1) + scene.start) % 1


def render_frames(
    scene: Scene, frames: Int[np.ndarray, "t"], size: tuple[int, int]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw frames: the shape with soft edges over the background."""
    u, v = _shape_grid(scene, frames, size)
    cover = _cover(scene, u, v, size)[..., None]
    ink = _colour(scene.hues[0], 0.9) * _texture(scene.static, u, v)[..., None]
    picture = _backdrop(scene, *_pixels(size)) * (1 - cover) + ink * cover
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def render_mask(
    scene: Scene, frames: Int[np.ndarray, "t"], size: tuple[int, int]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the mask of `render_frames`: the shape white on black."""
    cover = _cover(scene, *_shape_grid(scene, frames, size), size)
    return np.repeat(np.round(255 * cover).astype(np.uint8)[..., None], 3, axis=-1)


def _pixels(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of pixel centers: a row of x and a column of y."""
    height, width = size
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
    return x, y


def _shape_grid(
    scene: Scene, frames: Int[np.ndarray, "t"], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of pixels relative to the shape, with center 0 and radius 1."""
    x, y = _pixels(size)
    centre = shape_centre(scene, frames).astype(np.float32)
    across = (x - centre[:, 0, None, None] + 0.5) % 1 - 0.5
    down = (y - centre[:, 1, None, None] + 0.5) % 1 - 0.5
    return across / scene.radius, down / scene.radius  # columns and rows: they broadcast


def _cover(scene: Scene, u: np.ndarray, v: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the coverage of each pixel by the shape."""
    edge = 1.5 / (min(size) * scene.radius)
    return np.clip(0.5 - _distance(scene.static, u, v) / edge, 0, 1)


def _distance(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return a signed distance to the outline, negative inside; the shape fits the unit disc."""
    across, down = np.abs(u), np.abs(v)
    match SHAPES[shape]:
        case "disc":
            return np.sqrt(u * u + v * v) - 0.9
        case "square":
            return np.maximum(across, down) - 0.8
        case "triangle":
            return np.maximum(v - 0.6, 0.87 * across - 0.5 * v - 0.45)
        case "ring":
            return np.abs(np.sqrt(u * u + v * v) - 0.7) - 0.25
        case "cross":
            return np.maximum(np.maximum(across, down) - 0.95, np.minimum(across, down) - 0.3)
        case "diamond":
            return 0.71 * (across + down) - 0.68
        case "bar":
            return np.maximum(across - 0.35, down - 1.0)
        case "heart":
            w = v + 0.55 * np.sqrt(across + 0.01) - 0.15
            return np.sqrt(1.2 * u * u + 1.4 * w * w) - 0.75


def _texture(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the brightness of the shape's surface: plain, striped or checkered."""
    match kind % 4:
        case 0:
            return np.ones_like(u)
        case 1:
            return 0.7 + 0.3 * np.sign(np.sin(7 * u))
        case 2:
            return 0.7 + 0.3 * np.sign(np.sin(7 * v))
        case 3:
            return 0.7 + 0.3 * np.sign(np.sin(7 * u)) * np.sign(np.sin(7 * v))


def _backdrop(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a still, dim wave pattern in the complementary hue of the shape."""
    cycles_x, cycles_y = divmod(scene.static + 1, 3)
    wave = np.sin(math.tau * (cycles_x * x + cycles_y * y + scene.phase))
    mix = (0.5 + 0.25 * wave)[..., None]
    return mix * _colour(scene.hues[1] + 0.5, 0.6)


def _colour(hue: float, value: float) -> np.ndarray:
    """Return an RGB color of moderate saturation."""
    wheel = 0.5 + 0.5 * np.cos(math.tau * (hue - np.array([0.0, 1 / 3, 2 / 3])))
    return (value * (0.35 + 0.65 * wheel)).astype(np.float32)
