"""Rendered videos with known static and dynamic factors.

A textured, colored shape moves over a still background on a torus. The *static* class determines
shape, texture, hue and background. The *dynamic* class determines only the trajectory: all motions
have the same speed and uniformly distributed positions, so that no single frame reveals the class.
Hues vary slightly; sizes, speeds, starts and phases vary freely. Mirroring a video changes its
dynamic class.

Two settings make the videos harder to take apart. With another `motion` the shape rests, and one of
four gratings moves: motion of low rank in time. `drift` adds a third factor, a slow change of the
whole frame that all clips of a video share.

All factors are known, so the same videos are also available with one factor changed, and as masks
of what moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vrl_jax import check
from vrl_jax.data.datasets import wave_patterns
from vrl_jax.data.datasets.scene_rendering import SHAPES, SHUTTLE, Scene
from vrl_jax.data.datasets.wave_patterns import Drift, Gratings
from vrl_jax.data.video_dataset import Video

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
SLOWEST, FASTEST = 0.8, 1.2  # factors of the speed
PURPOSES = ("pretrain", "train", "test")
MOTION_CLASSES = {
    "shapes": MOTIONS,
    "travelling": wave_patterns.TRAVELLING,
    "standing": wave_patterns.STANDING,
}
FACTORS = ("static", "dynamic", "drift", "phase")
VARIANTS = ("videos", "masks", *(f"another {factor}" for factor in FACTORS))


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
      motion: what moves. "shapes": the shape, on trajectories; "travelling" and "standing": one of
        four gratings, which travels or swells in place (see `vrl_jax.data.datasets.wave_patterns`).
      drift: amplitude of the slow change of a video relative to that of its motion, in effect on
        pixels; 0 has none. With a drift, videos have the label "drift", its kind and sense,
        independent of the other two in all parts.
      drift_rate: of the drift, in radians per frame; 0 draws it for each video from 0.1 to 0.25.
    """

    benchmark: ClassVar[str] = ""

    pretrain_videos: int = 4096
    train_videos: int = 1024
    test_videos: int = 1024
    classes: int = 8
    cooccurrence: float = 0.9
    frames: int = 40
    seed: int = 0
    motion: str = "shapes"
    drift: float = 0.0
    drift_rate: float = 0.0

    def __post_init__(self):
        check.one_of(tuple(MOTION_CLASSES), motion=self.motion)
        check.at_least(0, drift=self.drift, drift_rate=self.drift_rate)
        check.at_least(2, classes=self.classes, frames=self.frames)
        check.at_least(1, pretrain_videos=self.pretrain_videos, test_videos=self.test_videos)
        check.at_least(1, train_videos=self.train_videos)
        check.fraction(cooccurrence=self.cooccurrence)
        if self.classes > len(MOTIONS):
            raise ValueError(f"classes must be at most {len(MOTIONS)}, got {self.classes}")

    @property
    def standing_rate(self) -> float:
        """The rate of the slowest motion to and fro, in radians per frame; 0 where there is none.

        Operators of single frames see its cosine.
        """
        if self.motion == "shapes":
            return SLOWEST * SHUTTLE * (self.classes > MOTIONS.index("to and fro"))
        return SLOWEST * wave_patterns.STANDING_RATES[0] * (self.motion == "standing")

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
      variant: "videos", "masks", or "another" and one of `FACTORS`, in which alone the videos
        differ.
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
        """Return the class names of all factors."""
        config = self.config
        classes = {
            "static": SHAPES[: config.classes],
            "dynamic": MOTION_CLASSES[config.motion][: config.classes],
        }
        return classes | {"drift": wave_patterns.DRIFTS} if config.drift else classes

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
            speed=float(rng.uniform(SLOWEST, FASTEST)),
            radius=float(rng.uniform(0.15, 0.2)),
            hues=tuple(((static / count + rng.normal(0, 0.03, 2)) % 1).tolist()),
        )
        step = int(rng.integers(1, count))
        scene = _add_patterns(scene, self.config, rng)
        scene = _make_variant(scene, self.variant, step, count)
        labels = {"static": scene.static, "dynamic": scene.dynamic}
        if scene.drift:
            labels["drift"] = scene.drift.kind
        return Video(f"{self.purpose}-{index:06d}", scene, labels)

    def masks(self) -> "Scenes":
        """Return masks as videos, white on what moves: on the shape, or everywhere."""
        return replace(self, variant="masks")

    def twins(self) -> dict[str, "Scenes"]:
        """Return the videos with one factor changed, by factor."""
        factors = [factor for factor in FACTORS if factor != "drift" or self.config.drift]
        return {factor: replace(self, variant=f"another {factor}") for factor in factors}

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"Scenes({self.purpose}, {self.length} videos)"


def _add_patterns(scene: Scene, config: Synthetic, rng: np.random.Generator) -> Scene:
    """Draw the gratings and the drift of a scene, where the data set has them."""
    if config.motion != "shapes":
        phases, levels = (tuple(rng.random(4).tolist()) for _ in range(2))
        gratings = Gratings(phases, levels, config.motion == "standing")
        scene = replace(scene, gratings=gratings)
    if config.drift:
        kind = int(rng.integers(len(wave_patterns.DRIFTS)))
        rate, phase = rng.uniform(*wave_patterns.DRIFT_RATES), float(rng.random())
        drift = Drift(kind, config.drift, config.drift_rate or float(rate), phase)
        scene = replace(scene, drift=drift)
    return scene


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
        case "another drift":
            kind = (scene.drift.kind + step) % len(wave_patterns.DRIFTS)
            return replace(scene, drift=replace(scene.drift, kind=kind))
        case "another phase" if scene.gratings:
            phases = list(scene.gratings.phases)
            phases[scene.dynamic // 2] += 0.5
            return replace(scene, gratings=replace(scene.gratings, phases=tuple(phases)))
        case "another phase":
            return replace(scene, start=tuple((x + 0.5) % 1 for x in scene.start))
    return scene
