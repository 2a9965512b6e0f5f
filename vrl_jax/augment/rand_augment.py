"""RandAugment (Cubuk et al., 2020, arXiv 1909.13719) of whole clips.

The fifteen operations, their ranges and their names are those of timm and of the released code of
VideoMAE and V-JEPA 2, which apply them to 8-bit frames with Pillow. Every operation maps integers
from 0 to 255 to such integers as Pillow does: blends and interpolation truncate. All frames of a
clip share the operations and their strengths; statistics (histograms, extremes, mean gray levels)
are those of each frame.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

MAX_LEVEL = 10.0
PROBABILITY = 0.5  # of each chosen operation
FILL = 128  # of pixels from outside the frame
LUMA = (19595, 38470, 7471)  # ITU-R BT.601 in units of 2^-16, as in Pillow
PART = re.compile(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)")

Frames = Int[Array, "t h w 3"]
Level = Float[Array, ""]  # 0 to 10
Operation = Callable[[Frames, Level, Level], Frames]


@dataclass(frozen=True)
class RandAugment:
    """A policy: operations are drawn with replacement, each is applied with probability 0.5.

    Attributes:
      magnitude: mean strength, 0 to 10.
      count: operations that are drawn.
      std: standard deviation of the strength, which is clipped to [0, 10].
      increasing: the strength of every operation grows with the magnitude.
    """

    magnitude: float = MAX_LEVEL
    count: int = 2
    std: float = 0.0
    increasing: bool = False


def parse_policy(text: str) -> RandAugment:
    """Return the policy of a name such as "rand-m7-n4-mstd0.5-inc1".

    The parts are those of timm: `m` magnitude, `n` number of operations, `mstd` standard deviation
    of the magnitude, `inc` 1 for operations whose strength increases. Without them: m10, n2, no
    deviation, inc0.

    Raises:
      ValueError: the text is no such name.
    """
    first, *parts = text.split("-")
    matches = [PART.fullmatch(part) for part in parts]
    values = {match[1]: float(match[2]) for match in matches if match}
    whole = all(values.get(name, 0.0).is_integer() for name in ("n", "inc"))
    valid = first == "rand" and all(matches) and len(values) == len(parts) and whole
    if not valid or values.get("m", 0) > MAX_LEVEL or values.get("inc", 0) > 1:
        raise ValueError(
            f"rand must be a policy such as 'rand-m7-n4-mstd0.5-inc1' with m up to 10, got {text!r}"
        )
    return RandAugment(
        magnitude=values.get("m", MAX_LEVEL),
        count=int(values.get("n", 2)),
        std=values.get("mstd", 0.0),
        increasing=bool(values.get("inc", 0)),
    )


def rand_augment(
    key: Key[Array, ""], clip: UInt8[Array, "t h w 3"], policy: RandAugment
) -> UInt8[Array, "t h w 3"]:
    """Apply random operations to a clip.

    Only the operations that were drawn are computed, unless this function is vectorised: map it
    over clips with `jax.lax.map`.
    """
    operations = (lambda x, level, sign: x, *list_operations(policy.increasing).values())

    def apply(number: Array, x: Array) -> Array:
        keys = jax.random.split(jax.random.fold_in(key, number), 4)
        choice = jax.random.randint(keys[0], (), 1, len(operations))
        applied = jax.random.bernoulli(keys[1], PROBABILITY)
        level = policy.magnitude + policy.std * jax.random.normal(keys[2])
        sign = jnp.where(jax.random.bernoulli(keys[3]), 1.0, -1.0)
        choice = jnp.where(applied, choice, 0)
        return jax.lax.switch(choice, operations, x, jnp.clip(level, 0, MAX_LEVEL), sign)

    return jax.lax.fori_loop(0, policy.count, apply, clip.astype(jnp.int32)).astype(jnp.uint8)


def list_operations(increasing: bool) -> dict[str, Operation]:
    """Return the operations `(frames, level, sign) -> frames` by name; signs are 1 or -1.

    Args:
      increasing: posterize, solarize and the four enhancements grow stronger with the level.
    """

    def bits(level: Level) -> Array:
        count = _whole(level / MAX_LEVEL * 4)
        return 4 - count if increasing else count

    def threshold(level: Level) -> Array:
        value = _whole(level / MAX_LEVEL * 256)
        return 256 - value if increasing else value

    def factor(level: Level, sign: Level) -> Array:
        if increasing:
            return 1 + sign * level / MAX_LEVEL * 0.9
        return level / MAX_LEVEL * 1.8 + 0.1

    def enhance(reference: Callable[[Frames], Array]) -> Operation:
        return lambda x, level, sign: blend(reference(x), x, factor(level, sign))

    def move(matrix: Callable[[Array, tuple[int, int]], tuple], most: float) -> Operation:
        return lambda x, level, sign: warp(x, matrix(sign * level / MAX_LEVEL * most, x.shape[1:3]))

    return {
        "autocontrast": lambda x, level, sign: autocontrast(x),
        "equalize": lambda x, level, sign: equalize(x),
        "invert": lambda x, level, sign: 255 - x,
        "rotate": move(_rotation, 30.0),
        "posterize": lambda x, level, sign: posterize(x, bits(level)),
        "solarize": lambda x, level, sign: jnp.where(x < threshold(level), x, 255 - x),
        "solarize_add": lambda x, level, sign: _solarize_add(x, _whole(level / MAX_LEVEL * 110)),
        "color": enhance(to_gray),
        "contrast": enhance(_mean_gray),
        "brightness": enhance(jnp.zeros_like),
        "sharpness": enhance(smooth),
        "shear_x": move(lambda s, size: (1, s, 0, 0, 1, 0), 0.3),
        "shear_y": move(lambda s, size: (1, 0, 0, s, 1, 0), 0.3),
        "translate_x": move(lambda s, size: (1, 0, s * size[1], 0, 1, 0), 0.45),
        "translate_y": move(lambda s, size: (1, 0, 0, 0, 1, s * size[0]), 0.45),
    }


def autocontrast(x: Frames) -> Frames:
    """Stretch every channel of a frame to the range from 0 to 255."""
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    return jnp.where(high > low, (x - low) * 255 // jnp.maximum(high - low, 1), x)


def equalize(x: Frames) -> Frames:
    """Equalise the histogram of every channel of a frame.

    With counts h, of which the last that is not 0 is left out, and s = sum(h) // 255, the value i
    becomes (s // 2 + h_0 + ... + h_(i-1)) // s. A channel with s = 0 stays.
    """
    t, h, w, c = x.shape
    rows = x.transpose(0, 3, 1, 2).reshape(t * c, h * w)
    counts = jnp.zeros((t * c, 256), jnp.int32)
    counts = counts.at[jnp.arange(t * c)[:, None], rows].add(1)
    below = jnp.cumsum(counts, axis=1) - counts
    last = jnp.take_along_axis(counts, rows.max(1, keepdims=True), axis=1)
    step = (h * w - last) // 255
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    equal = jnp.where(step > 0, jnp.take_along_axis(table, rows, axis=1), rows)
    return equal.reshape(t, c, h, w).transpose(0, 2, 3, 1)


def posterize(x: Frames, bits: Int[Array, ""]) -> Frames:
    """Keep the highest `bits` of 8 bits."""
    return x >> (8 - bits) << (8 - bits)


def to_gray(x: Frames) -> Int[Array, "t h w 1"]:
    """Return the gray level of every pixel."""
    return ((x * jnp.array(LUMA)).sum(-1, keepdims=True) + 2**15) >> 16


def smooth(x: Frames) -> Frames:
    """Average 3 x 3 pixels with a weight of 5 for the one in the middle; the border stays."""
    near = sum(x[:, i : i + x.shape[1] - 2] for i in range(3))
    near = sum(near[:, :, j : j + x.shape[2] - 2] for j in range(3))
    total = near + 4 * x[:, 1:-1, 1:-1]
    return x.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def blend(reference: Array, x: Frames, factor: Float[Array, ""]) -> Frames:
    """Return reference + factor * (x - reference), clipped to [0, 255] and truncated."""
    mixed = reference + factor * (x - reference).astype(jnp.float32)
    return _whole(jnp.clip(mixed, 0, 255))


def warp(x: Frames, matrix: tuple) -> Frames:
    """Move pixels: the output at (column, row) is the input at matrix times that.

    The matrix (a, b, c, d, e, f) maps centres of pixels, column + 1/2 and row + 1/2, to the columns
    a column + b row + c and rows d column + e row + f. Interpolation is by cubic convolution with
    the parameter -1, as Pillow's; pixels from outside are 128.
    """
    _, h, w, _ = x.shape
    a, b, c, d, e, f = matrix
    column, row = jnp.arange(w) + 0.5, jnp.arange(h)[:, None] + 0.5
    columns, rows = a * column + b * row + c, d * column + e * row + f
    inside = (columns >= 0) & (columns < w) & (rows >= 0) & (rows < h)
    left, top = jnp.floor(columns - 0.5), jnp.floor(rows - 0.5)
    across, down = (columns - 0.5 - left)[..., None], (rows - 0.5 - top)[..., None]

    def taps(first: Array, size: int) -> list[Array]:
        return [jnp.clip(first.astype(jnp.int32) + i, 0, size - 1) for i in range(-1, 3)]

    def line(at: Array) -> Array:
        return _cubic([x[:, at, i].astype(jnp.float32) for i in taps(left, w)], across)

    moved = _cubic([line(at) for at in taps(top, h)], down)
    return jnp.where(inside[..., None], _whole(jnp.clip(moved, 0, 255)), FILL)


def _cubic(v: list[Array], d: Array) -> Array:
    """Interpolate four neighbours at a distance d from the second; exact where d is 0."""
    second = 2 * (v[0] - v[1]) + v[2] - v[3]
    third = v[1] - v[0] + v[3] - v[2]
    return v[1] + d * (v[2] - v[0] + d * (second + d * third))


def _rotation(degrees: Array, size: tuple[int, int]) -> tuple:
    """Return the matrix of a rotation around the centre, counter-clockwise."""
    angle = -jnp.deg2rad(degrees)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    y, x = size[0] / 2, size[1] / 2
    return cosine, sine, x - x * cosine - y * sine, -sine, cosine, y + x * sine - y * cosine


def _mean_gray(x: Frames) -> Int[Array, "t 1 1 1"]:
    count = x.shape[1] * x.shape[2]
    return (2 * to_gray(x).sum((1, 2), keepdims=True) + count) // (2 * count)


def _solarize_add(x: Frames, add: Array) -> Frames:
    return jnp.where(x < 128, jnp.minimum(x + add, 255), x)


def _whole(x: Array) -> Array:
    """Truncate to an integer."""
    return x.astype(jnp.int32)
