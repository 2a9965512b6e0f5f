"""Patterns of low rank in time: gratings that move, and slow drifts.

Each moving pattern is one or two fixed images with sinusoidal weights in time, so that pixels, and
linear features of them, are a linear dynamical system with eigenvalues e^(+-iw). What travels has
rank 2. What stands still and swells has rank 1: single frames see the real number cos w.

Nothing here imports JAX.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CYCLES = 2.0  # of every grating, per canvas side
AMPLITUDE = 0.08  # of a grating in a video without drift
DIRECTIONS = ((1.0, 0.0), (0.0, 1.0), (0.5**0.5, 0.5**0.5), (0.5**0.5, -(0.5**0.5)))
TRAVELLING = (
    "right",
    "left",
    "down",
    "up",
    "down right",
    "up left",
    "up right",
    "down left",
)
STANDING = tuple(
    f"{axis}, {rate}"
    for axis in ("horizontal", "vertical", "falling diagonal", "rising diagonal")
    for rate in ("slow", "fast")
)
TRAVELLING_RATE = 0.75  # radians per frame
STANDING_RATES = (0.5, 0.85)
DRIFTS = (
    "pan right",
    "pan left",
    "pan down",
    "pan up",
    "fade",
    "shadow",
    "hue forward",
    "hue back",
)
DRIFT_RATES = 0.1, 0.25  # radians per frame, slower than every motion


@dataclass(frozen=True)
class Gratings:
    """The four gratings of a video.

    Attributes:
      phases: phase of each grating, in turns.
      levels: of standing gratings, where in its cycle each is, in turns.
      standing: the moving grating swells in place; else it travels.
    """

    phases: tuple[float, ...]
    levels: tuple[float, ...]
    standing: bool


@dataclass(frozen=True)
class Drift:
    """The slow change of a video.

    Attributes:
      kind: an index of `DRIFTS`.
      strength: amplitude relative to that of the motion, in effect on pixels.
      rate: radians per frame.
      phase: in turns.
    """

    kind: int
    strength: float
    rate: float
    phase: float


def draw_gratings(
    gratings: Gratings,
    motion: int,
    speed: float,
    frames: Int[np.ndarray, "t"],
    grid: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, "t h w"]:
    """Draw four gratings, of which one moves; no single frame reveals which.

    Args:
      gratings: their phases, and whether they stand.
      motion: class of the motion: an index of `TRAVELLING`, or of `STANDING`.
      speed: factor of the rate.
      frames: their numbers.
      grid: coordinates of pixels, a row of x and a column of y, in canvas sides.
    """
    moving, variant = divmod(motion, 2)
    rate = STANDING_RATES[variant] if gratings.standing else TRAVELLING_RATE
    turn = speed * rate * frames
    total = np.zeros((len(frames), 1, 1), np.float32)
    for number, (direction, phase) in enumerate(zip(DIRECTIONS, gratings.phases, strict=True)):
        moves = turn * (number == moving)
        if gratings.standing:
            weight = np.cos(moves + math.tau * gratings.levels[number])[:, None, None]
            total = total + weight * _grating(direction, phase, np.zeros(1), grid)
        else:
            sign = -1 if variant else 1
            total = total + _grating(direction, phase, sign * moves, grid)
    return (AMPLITUDE * total).astype(np.float32)


def motion_effect(standing: bool) -> float:
    """Return the root mean square change of a pixel by the moving grating, over a long time."""
    return AMPLITUDE / (2 if standing else math.sqrt(2))


def draw_drift(
    drift: Drift, frames: Int[np.ndarray, "t"], grid: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "t _ _ _"]:
    """Draw a slow change of the whole frame with root mean square 1 over space and a long time.

    A pan is a travelling grating. A fade is the light of the whole frame, and a shadow that of its
    left side against its right one; both swell and wane. A turn of hue changes color alone.

    Args:
      drift: its kind, rate and phase; the strength is not applied.
      frames: their numbers.
      grid: coordinates of pixels, a row of x and a column of y, in canvas sides.
    """
    kind, phase, turn = drift.kind, drift.phase, drift.rate * frames
    sign = -1 if kind % 2 else 1
    if kind < 4:
        pattern = _grating(DIRECTIONS[kind // 2], phase, sign * turn, grid)[..., None]
    elif kind < 6:
        swell = np.cos(turn + math.tau * phase)[:, None, None, None]
        side = np.cos(math.pi * grid[0]) * math.sqrt(2) if kind == 5 else np.ones((1, 1))
        pattern = swell * side[..., None]
    else:
        hues = math.tau * (np.arange(3) / 3 + phase)
        pattern = np.cos(sign * turn[:, None] - hues)[:, None, None, :]
    return (math.sqrt(2) * pattern).astype(np.float32)


def _grating(
    direction: tuple[float, float],
    phase: float,
    turn: Float[np.ndarray, "t"],
    grid: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, "t h w"]:
    """Draw a grating that has moved by `turn` radians along its direction."""
    x, y = grid
    angle = math.tau * (CYCLES * (direction[0] * x + direction[1] * y) + phase)
    turn = turn[:, None, None]
    return np.cos(angle) * np.cos(turn) + np.sin(angle) * np.sin(turn)
