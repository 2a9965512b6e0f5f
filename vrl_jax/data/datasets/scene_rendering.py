"""Pictures of rendered scenes: a textured shape, gratings and a drift over a background.

Nothing here imports JAX.
"""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from vrl_jax.data.datasets import wave_patterns
from vrl_jax.data.datasets.wave_patterns import Drift, Gratings

SHAPES = ("disc", "square", "triangle", "ring", "cross", "diamond", "bar", "heart")
SPEED = 0.06  # per frame, as a fraction of the canvas side
TURN = 0.12  # radius of circles and half-length of shuttles, as a fraction of the canvas side
SHAPES_EFFECT = 0.073  # root mean square change of a pixel by a moving shape, at 32 x 32
SHUTTLE = math.tau * SPEED / (4 * TURN)  # radians per frame at speed 1


@dataclass(frozen=True)
class Scene:
    """Parameters of one video: lengths in canvas sides, angles and phases in turns.

    With gratings the shape rests at `start`. A masked scene renders the coverage of each pixel by
    what moves.
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
    gratings: Gratings | None = None
    drift: Drift | None = None

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
    """Draw frames: the shape with soft edges over the background, gratings and drift over both."""
    resting = scene.gratings is not None
    u, v = _shape_grid(scene, frames[:1] * 0 if resting else frames, size)
    cover = _cover(scene, u, v, size)[..., None]
    ink = _colour(scene.hues[0], 0.9) * _texture(scene.static, u, v)[..., None]
    picture = _backdrop(scene, *_pixels(size)) * (1 - cover) + ink * cover
    if resting:
        moving = wave_patterns.draw_gratings(
            scene.gratings, scene.dynamic, scene.speed, frames, _pixels(size)
        )
        picture = 0.5 + 0.6 * (picture - 0.5) + moving[..., None]
    if scene.drift:
        picture = _mix_drift(picture, scene, frames, size)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def render_mask(
    scene: Scene, frames: Int[np.ndarray, "t"], size: tuple[int, int]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw the mask of `render_frames`: white on what moves, black elsewhere."""
    if scene.gratings:
        return np.full((len(frames), *size, 3), 255, np.uint8)
    cover = _cover(scene, *_shape_grid(scene, frames, size), size)
    return np.repeat(np.round(255 * cover).astype(np.uint8)[..., None], 3, axis=-1)


def _mix_drift(
    picture: np.ndarray, scene: Scene, frames: Int[np.ndarray, "t"], size: tuple[int, int]
) -> np.ndarray:
    """Add the drift; all contrasts shrink to make room for it, so that nothing is clipped."""
    drift, gratings = scene.drift, scene.gratings
    effect = wave_patterns.motion_effect(gratings.standing) if gratings else SHAPES_EFFECT
    pattern = wave_patterns.draw_drift(drift, frames, _pixels(size))
    change = picture - 0.5 + drift.strength * effect * pattern
    return 0.5 + change / (1 + drift.strength)


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
