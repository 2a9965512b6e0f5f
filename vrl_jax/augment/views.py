"""Random views of decoded clips, drawn on the device inside `jit`.

Every draw is made once per clip and holds for all its frames, so that what changes over time in a
view is only what changed in the video. Each operation is a pure function of one clip; a batch is a
`vmap`. Geometry and blur are products with small dense matrices, which every accelerator likes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from vrl_jax import check
from vrl_jax.augment.crops import (
    Crops,
    crop_boxes,
    fixed_crops,
    one_crop,
    random_crop,
    random_resized_crop,
    random_scaled_crop,
)
from vrl_jax.types import View

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


@dataclass(frozen=True)
class Augment:
    """How a decoded clip becomes a random view; the defaults are "aug+" of arXiv 2104.14558.

    Attributes:
      size: side of the square view, in pixels.
      reverse: probability that all views of a video are played backwards.
      crop: "resized" cuts a random box, see `area` and `aspect`, and resizes it; "scaled" a random
        square, see `scale`; "plain" cuts `size` pixels each way at a random place.
      subtract_background: leave only what moves: see the function of that name; for cameras that
        stand still. Evaluation does the same.
      area: least and greatest share of the frame's area that is cropped.
      aspect: least and greatest width / height of the crop, in decoded pixels.
      scale: least and greatest shorter side of the frame, in sides of a "scaled" crop.
      flip: probability of a mirror image; 0 where left and right matter to the labels.
      jitter: probability of brightness, contrast, saturation and hue jitter.
      brightness: a factor from 1 - brightness to 1 + brightness, never below 0.
      contrast: the same.
      saturation: the same.
      hue: greatest shift either way, in turns of the colour circle (at most 0.5).
      gray: probability of losing all colour.
      gray_kind: "luma" keeps the brightness; "channel" keeps one of the colours, drawn at random.
      blur: probability of a Gaussian blur.
      sigma: least and greatest standard deviation of the blur, in pixels of the view.
      mean: subtracted per channel at the end, from values in [0, 1].
      std: divided by afterwards.
    """

    size: int = 112
    reverse: float = 0.0
    crop: str = "resized"
    subtract_background: bool = False
    area: tuple[float, float] = (0.2, 0.766)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    scale: tuple[float, float] = (256 / 224, 320 / 224)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.6
    contrast: float = 0.6
    saturation: float = 0.6
    hue: float = 0.15
    gray: float = 0.2
    gray_kind: str = "luma"
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    def __post_init__(self) -> None:
        check.positive(size=self.size, least_std=min(self.std))
        check.fraction(flip=self.flip, jitter=self.jitter, gray=self.gray, blur=self.blur)
        check.fraction(reverse=self.reverse)
        check.one_of(("resized", "scaled", "plain"), crop=self.crop)
        check.one_of(("luma", "channel"), gray_kind=self.gray_kind)
        check.at_least(0, brightness=self.brightness, contrast=self.contrast)
        check.at_least(0, saturation=self.saturation, hue=self.hue)
        if self.hue > 0.5:
            raise ValueError(f"hue is in turns of the colour circle, at most 0.5; got {self.hue}")
        for name, most in (("area", 1), ("aspect", np.inf), ("sigma", np.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise ValueError(f"{name} must be 0 < least <= greatest <= {most}: {low, high}")
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be 1 <= least <= greatest, got {self.scale}")


def make_views(
    key: Key[Array, ""],
    clips: UInt8[Array, "b k t h w 3"],
    views: tuple[View, ...],
    augment: Augment,
) -> Float[Array, "b v t s s 3"]:
    """Draw the views of every video: equal for a clip's frames, independent otherwise.

    A video's draw depends only on the key and its row in the global batch: one device or many.

    Args:
      key: of this step.
      clips: the k clips decoded from each of b videos.
      views: each says which of the k clips it is made from.
      augment: what to draw.

    Raises:
      ValueError: a view asks for a clip that was not decoded, or a plain crop is larger than the
        frames.
    """
    wanted = [view.clip for view in views]
    if not all(0 <= clip < clips.shape[1] for clip in wanted):
        raise ValueError(
            f"views are made from clips {wanted}, but {clips.shape[1]} clip(s) per video were "
            f"decoded; clip must lie in [0, {clips.shape[1] - 1}]"
        )

    if augment.crop == "plain" and augment.size > min(clips.shape[3:5]):
        raise ValueError(
            f"a plain crop of augment.size={augment.size} wants frames at least that large, got "
            f"{clips.shape[3]} x {clips.shape[4]}: raise resize, or take augment.crop='resized'"
        )
    own = [i if view.drawn_as < 0 else view.drawn_as for i, view in enumerate(views)]
    still = np.array([view.still for view in views])
    weak = np.array([view.weak for view in views], np.float32)

    def draw(row: Array, chosen: Array) -> Array:
        key_row = jax.random.fold_in(key, row)
        keys = jax.random.split(key_row, len(views))[np.array(own)]
        key_order, key_frame = jax.random.split(jax.random.fold_in(key_row, len(views)))
        # Before a frame is held: a still clip is all background.
        chosen = jax.vmap(lambda clip: _prepare(clip, augment))(chosen)
        if augment.reverse:
            backwards = jax.random.bernoulli(key_order, augment.reverse)
            chosen = jnp.where(backwards, chosen[:, ::-1], chosen)
        if still.any():
            frame = jax.random.randint(key_frame, (), 0, chosen.shape[1])
            frozen = jnp.broadcast_to(chosen[:, frame][:, None], chosen.shape)
            chosen = jnp.where(still[:, None, None, None, None], frozen, chosen)
        if not weak.any():
            return jax.vmap(lambda key, clip: _draw_view(key, clip, augment))(keys, chosen)
        return jax.vmap(lambda *given: _draw_view(*given[:2], augment, given[2]))(
            keys, chosen, weak
        )

    return jax.vmap(draw)(jnp.arange(len(clips)), clips[:, np.array(wanted)])


def average_over_crops(
    read: Callable[[Float[Array, "n t s s 3"]], Array],
    clips: UInt8[Array, "n t h w 3"],
    augment: Augment,
    crops: Crops,
) -> Array:
    """Return the mean of `read` over fixed squares of the clips, one square held at a time."""
    boxes, mirrored = crop_boxes(clips.shape[2:4], augment.size, crops)

    def of_one(square: tuple[Array, Array]) -> Array:
        def view(clip: Array) -> Array:
            cut = one_crop(_prepare(clip, augment), *square, augment.size)
            return normalize(cut, augment.mean, augment.std)

        return read(jax.vmap(view)(clips))

    return jax.lax.map(of_one, (jnp.asarray(boxes), jnp.asarray(mirrored))).mean(0)


def center_view(clips: UInt8[Array, "n t h w 3"], augment: Augment) -> Float[Array, "n t s s 3"]:
    """Return the clips' greatest central square, resized and normalised."""

    def view(clip: Array) -> Array:
        (cut,) = fixed_crops(_prepare(clip, augment), augment.size, Crops())
        return normalize(cut, augment.mean, augment.std)

    return jax.vmap(view)(clips)


def subtract_background(clip: Float[Array, "t h w 3"]) -> Float[Array, "t h w 3"]:
    """Subtract the clip's mean over time from its frames, on mid-grey, within [0, 1].

    Of a clip's pixels taken as a linear dynamical system this is the mode of eigenvalue 1.
    """
    return jnp.clip(0.5 + clip - clip.mean(0), 0, 1)


def random_flip(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], probability: float
) -> Float[Array, "t h w 3"]:
    """Mirror left and right, with the given probability."""
    if probability == 0:
        return clip
    return jnp.where(jax.random.bernoulli(key, probability), clip[:, :, ::-1], clip)


def color_jitter(
    key: Key[Array, ""],
    clip: Float[Array, "t h w 3"],
    probability: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float[Array, "t h w 3"]:
    """Jitter colours of values in [0, 1] in random order, with the given probability.

    As torchvision's ColorJitter: the first three are `f x + (1 - f) reference`, clipped to [0, 1],
    f uniform; the reference is black, the mean gray (here of the clip, so that one map serves all
    frames) and the pixel's own gray. Hue is shifted in HSV. Strength 0 leaves an operation out.

    `vmap` over a random order would evaluate each operation in each place. Instead the blends, all
    one formula, fill slots before and after a single hue shift; an empty slot changes nothing.
    """
    if probability == 0:
        return clip
    on_key, factor_key, hue_key, order_key = jax.random.split(key, 4)
    on = jax.random.bernoulli(on_key, probability)
    kinds = ((brightness, jnp.zeros_like), (contrast, jnp.mean), (saturation, lambda gray: gray))
    references = [reference for strength, reference in kinds if strength > 0]
    strength = np.array([strength for strength, _ in kinds if strength > 0], np.float32)
    n = len(references)
    factor = jax.random.uniform(
        factor_key, (n,), minval=np.maximum(0, 1 - strength), maxval=1 + strength
    )
    order = jax.random.permutation(order_key, n + 1)  # of the blends and, last, of hue
    slot = jnp.where(order[:n] < order[n], order[:n], order[:n] + n - 1)
    shares = on * (1 - factor) * jax.nn.one_hot(slot, 2 * n, axis=0)  # [slot, blend]

    def blend(planes: Array, share: Array) -> tuple[Array, None]:
        gray = _to_gray(planes)
        added = sum(share[i] * reference(gray) for i, reference in enumerate(references))
        return jnp.clip((1 - share.sum()) * planes + added, 0, 1), None

    planes = jnp.moveaxis(clip, -1, 0)  # four times as fast on a CPU as channels last
    planes, _ = jax.lax.scan(blend, planes, shares[:n])
    if hue > 0:
        planes = shift_hue(planes, on * jax.random.uniform(hue_key, minval=-hue, maxval=hue))
    planes, _ = jax.lax.scan(blend, planes, shares[n:])
    return jnp.moveaxis(planes, 0, -1)


def shift_hue(planes: Float[Array, "3 t h w"], turns: Float[Array, ""]) -> Float[Array, "3 t h w"]:
    """Turn the hue of values in [0, 1], keeping HSV's saturation and value.

    With V the greatest and C the spread of a pixel's channels and H its hue in sixths of a turn,
    channel n ∈ (5, 3, 1) becomes V - C clip(min(k, 4 - k), 0, 1), where k = (n + H) mod 6.
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    spread = jnp.where(chroma == 0, 1, chroma)
    sixths = jnp.where(
        value == red,
        (green - blue) / spread,
        jnp.where(value == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )

    def channel(n: int) -> Array:
        k = n + sixths + 6 * turns
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)])


def random_grayscale(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], probability: float, kind: str = "luma"
) -> Float[Array, "t h w 3"]:
    """Give every pixel one value in all channels, with the given probability.

    The value is the pixel's luma, or with `kind` "channel" one of its colours, the same for all.
    """
    if probability == 0:
        return clip
    if kind == "channel":
        key, key_channel = jax.random.split(key)
        gray = clip[..., jax.random.randint(key_channel, (), 0, 3)][..., None]
    else:
        gray = _to_gray(jnp.moveaxis(clip, -1, 0))[..., None]
    return jnp.where(jax.random.bernoulli(key, probability), gray, clip)


def gaussian_blur(
    key: Key[Array, ""],
    clip: Float[Array, "t h w 3"],
    probability: float,
    sigma: tuple[float, float],
) -> Float[Array, "t h w 3"]:
    """Blur each frame, with the given probability; the deviation is uniform in `sigma`, in pixels.

    Nothing is padded: at an edge the weights of the pixels that exist are scaled to sum to one.
    """
    if probability == 0:
        return clip
    on_key, sigma_key = jax.random.split(key)
    on = jax.random.bernoulli(on_key, probability)
    deviation = jax.random.uniform(sigma_key, minval=sigma[0], maxval=sigma[1])

    def weights(n: int) -> Array:
        distance = np.arange(n)[:, None] - np.arange(n)
        kernel = jax.nn.softmax(-(distance**2) / (2 * deviation**2), axis=-1)
        return jnp.where(on, kernel, jnp.eye(n))

    _, h, w, _ = clip.shape
    return jnp.einsum("yh,xw,thwc->tyxc", weights(h), weights(w), clip, precision="highest")


def normalize(
    clip: Float[Array, "*t h w 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Array, "*t h w 3"]:
    """Subtract the mean and divide by the standard deviation, per channel."""
    return (clip - np.array(mean, np.float32)) / np.array(std, np.float32)


def _draw_view(key: Array, clip: Array, augment: Augment, weak: Array | None = None) -> Array:
    a = augment
    keys = jax.random.split(key, 5)
    if a.crop == "plain":
        clip = random_crop(keys[0], clip, a.size)
    elif a.crop == "scaled":
        clip = random_scaled_crop(keys[0], clip, a.size, a.scale)
    else:
        clip = random_resized_crop(keys[0], clip, a.size, a.area, a.aspect)
    plain = random_flip(keys[1], clip, a.flip)
    clip = color_jitter(keys[2], plain, a.jitter, a.brightness, a.contrast, a.saturation, a.hue)
    clip = random_grayscale(keys[3], clip, a.gray, a.gray_kind)
    clip = gaussian_blur(keys[4], clip, a.blur, a.sigma)
    if weak is not None:
        clip = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 5), weak), plain, clip)
    return normalize(clip, a.mean, a.std)


def _prepare(clip: Array, augment: Augment) -> Array:
    clip = clip.astype(jnp.float32) / 255
    return subtract_background(clip) if augment.subtract_background else clip


def _to_gray(planes: Array) -> Array:
    return sum(share * plane for share, plane in zip(LUMA, planes, strict=True))
