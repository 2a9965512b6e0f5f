"""Random views of decoded clips, generated on the device inside `jit`.

All frames of a clip share the random parameters, so that a view changes over time only where the
video does. Crops and blur are products with small dense matrices, fast on every accelerator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from vrl_jax import check
from vrl_jax.augment.photometric import (
    color_jitter,
    gaussian_blur,
    normalize,
    random_grayscale,
    subtract_background,
)
from vrl_jax.augment.spatial_crops import (
    Crops,
    crop_boxes,
    cut_crop,
    fixed_crops,
    random_crop,
    random_flip,
    random_resized_crop,
    random_scaled_crop,
)
from vrl_jax.types import View


@dataclass(frozen=True)
class Augment:
    """Augmentation of a decoded clip; the defaults are "aug+" of Feichtenhofer et al. (2021).

    The recipe is that of arXiv 2104.14558.

    Attributes:
      size: side of the square view, in pixels.
      reverse: probability of reversing all views of a video in time.
      crop: "resized" resizes a random box of the given `area` and `aspect`; "scaled" resizes a
        random square, see `scale`; "plain" cuts `size` x `size` pixels at a random position.
      subtract_background: subtract the temporal mean of each clip, for static cameras. Evaluation
        does the same.
      area: range of the area of a "resized" crop, as a fraction of the frame.
      aspect: range of its aspect ratio, width / height, in decoded pixels.
      scale: range of the frame's shorter side, in units of the side of a "scaled" crop.
      flip: probability of a horizontal flip; 0 if labels distinguish left from right.
      jitter: probability of colour jitter.
      brightness: strength; the factor is uniform in [max(0, 1 - brightness), 1 + brightness].
      contrast: strength of contrast jitter, likewise.
      saturation: strength of saturation jitter, likewise.
      hue: largest hue shift in either direction, in turns of the colour circle, at most 0.5.
      gray: probability of grayscale.
      gray_kind: "luma", the weighted sum of the channels, or "channel", one random channel.
      gray_first: grayscale precedes colour jitter, so that hue and saturation of a gray clip stay.
      blur: probability of Gaussian blur.
      sigma: range of its standard deviation, in pixels of the view.
      mean: per-channel mean subtracted from values in [0, 1], as the last step.
      std: per-channel standard deviation to divide by.
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
    gray_first: bool = False
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
            raise ValueError(f"hue must be at most 0.5 turns of the colour circle, got {self.hue}")
        for name, limit in (("area", 1), ("aspect", np.inf), ("sigma", np.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= limit:
                raise ValueError(
                    f"{name} must be a range (low, high) with 0 < low <= high <= {limit}, "
                    f"got {low, high}"
                )
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale must be a range (low, high) with 1 <= low <= high, got {self.scale}"
            )


def make_views(
    key: Key[Array, ""],
    clips: UInt8[Array, "b k t h w 3"],
    views: tuple[View, ...],
    augment: Augment,
    rows: Int[Array, " b"] | None = None,
) -> Float[Array, "b v t s s 3"]:
    """Generate the views of every video, augmented independently of one another.

    The random parameters of a video depend only on the key and on its row in the global batch, not
    on the number of devices.

    Args:
      key: of this step.
      clips: the k clips decoded from each of b videos.
      views: the views to generate; each names one of the k clips.
      augment: the augmentation.
      rows: of the videos in the global batch; by default `clips` is that batch.

    Raises:
      ValueError: a view refers to a clip that was not decoded, or a plain crop is larger than the
        frames.
    """
    clip_numbers = [view.clip for view in views]
    if not all(0 <= number < clips.shape[1] for number in clip_numbers):
        raise ValueError(
            f"View.clip must lie in [0, {clips.shape[1] - 1}], since {clips.shape[1]} clip(s) per "
            f"video were decoded; got {clip_numbers}"
        )

    if augment.crop == "plain" and augment.size > min(clips.shape[3:5]):
        raise ValueError(
            f"frames must have sides of at least augment.size={augment.size} for plain crops, got "
            f"{clips.shape[3]} x {clips.shape[4]}: increase resize or set augment.crop='resized'"
        )
    key_numbers = [
        i if view.same_augment_as < 0 else view.same_augment_as for i, view in enumerate(views)
    ]
    still = np.array([view.still for view in views])
    weak = np.array([view.weak for view in views], np.float32)

    def views_of_video(row: Array, clips: Array) -> Array:
        row_key = jax.random.fold_in(key, row)
        keys = jax.random.split(row_key, len(views))[np.array(key_numbers)]
        reverse_key, frame_key = jax.random.split(jax.random.fold_in(row_key, len(views)))
        # Before a frame is repeated: a still clip is all background.
        clips = jax.vmap(lambda clip: _prepare(clip, augment))(clips)
        if augment.reverse:
            is_reversed = jax.random.bernoulli(reverse_key, augment.reverse)
            clips = jnp.where(is_reversed, clips[:, ::-1], clips)
        if still.any():
            frame = jax.random.randint(frame_key, (), 0, clips.shape[1])
            repeated = jnp.broadcast_to(clips[:, frame][:, None], clips.shape)
            clips = jnp.where(still[:, None, None, None, None], repeated, clips)
        if not weak.any():
            return jax.vmap(lambda key, clip: _make_view(key, clip, augment))(keys, clips)
        return jax.vmap(lambda key, clip, weak: _make_view(key, clip, augment, weak))(
            keys, clips, weak
        )

    rows = jnp.arange(len(clips)) if rows is None else rows
    return jax.vmap(views_of_video)(rows, clips[:, np.array(clip_numbers)])


def average_over_crops(
    model: Callable[[Float[Array, "n t s s 3"]], Array],
    clips: UInt8[Array, "n t h w 3"],
    augment: Augment,
    crops: Crops,
) -> Array:
    """Return the mean of `model` over fixed crops of the clips, one crop in memory at a time."""
    boxes, flipped = crop_boxes(clips.shape[2:4], augment.size, crops)

    def of_one(crop: tuple[Array, Array]) -> Array:
        def view(clip: Array) -> Array:
            cropped = cut_crop(_prepare(clip, augment), *crop, augment.size)
            return normalize(cropped, augment.mean, augment.std)

        return model(jax.vmap(view)(clips))

    return jax.lax.map(of_one, (jnp.asarray(boxes), jnp.asarray(flipped))).mean(0)


def center_view(
    clips: UInt8[Array, "n t h w 3"] | Float[Array, "n t h w 3"], augment: Augment
) -> Float[Array, "n t s s 3"]:
    """Return the largest central square of each clip, resized and normalised.

    Args:
      clips: decoded frames, or the same values, 0 to 255, as floats.
      augment: the input of the encoder.
    """

    def view(clip: Array) -> Array:
        (cropped,) = fixed_crops(_prepare(clip, augment), augment.size, Crops())
        return normalize(cropped, augment.mean, augment.std)

    return jax.vmap(view)(clips)


def _make_view(key: Array, clip: Array, augment: Augment, weak: Array | None = None) -> Array:
    """Augment a clip; with probability `weak` only crop, flip and normalise it."""
    a = augment
    keys = jax.random.split(key, 5)
    if a.crop == "plain":
        clip = random_crop(keys[0], clip, a.size)
    elif a.crop == "scaled":
        clip = random_scaled_crop(keys[0], clip, a.size, a.scale)
    else:
        clip = random_resized_crop(keys[0], clip, a.size, a.area, a.aspect)
    plain = random_flip(keys[1], clip, a.flip)
    clip = random_grayscale(keys[3], plain, a.gray, a.gray_kind) if a.gray_first else plain
    clip = color_jitter(keys[2], clip, a.jitter, a.brightness, a.contrast, a.saturation, a.hue)
    if not a.gray_first:
        clip = random_grayscale(keys[3], clip, a.gray, a.gray_kind)
    clip = gaussian_blur(keys[4], clip, a.blur, a.sigma)
    if weak is not None:
        clip = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 5), weak), plain, clip)
    return normalize(clip, a.mean, a.std)


def _prepare(clip: Array, augment: Augment) -> Array:
    """Scale a decoded clip to [0, 1] and subtract its background if `augment` does."""
    clip = clip.astype(jnp.float32) / 255
    return subtract_background(clip) if augment.subtract_background else clip
