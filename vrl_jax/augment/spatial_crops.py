"""Spatial crops and flips: random ones for training, fixed ones for evaluation."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vrl_jax import check

TRIES = 10
POSITIONS = {"center": ((0.5, 0.5),), "three": ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0))}
POSITIONS["ten"] = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


@dataclass(frozen=True)
class Crops:
    """The square crops of a frame that an evaluation averages over.

    Attributes:
      positions: "center"; "three": start, middle and end of the longer side (and of the shorter
        one, if `share` is below 1); "ten": the four corners and the centre, each also flipped.
      share: side of a crop over the shorter side of the frame.
    """

    positions: str = "center"
    share: float = 1.0

    def __post_init__(self):
        check.one_of(tuple(POSITIONS), positions=self.positions)
        check.positive(share=self.share)
        check.fraction(share=self.share)

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(POSITIONS[self.positions]) * (2 if self.positions == "ten" else 1)


def crop_boxes(
    frame: tuple[int, int], size: int, crops: Crops
) -> tuple[Float[np.ndarray, "c 2 2"], Bool[np.ndarray, "c"]]:
    """Return the (corner, extent) of each crop in a frame, and whether it is flipped.

    A crop that needs no resizing starts at a whole pixel: interpolation would blur it.
    """
    frame_extent = np.array(frame, np.float32)
    extent = np.full(2, crops.share * frame_extent.min(), np.float32)
    corners = np.array(POSITIONS[crops.positions], np.float32) * (frame_extent - extent)
    if np.allclose(extent, size):
        corners = np.floor(corners + 0.5)
    boxes = np.stack([corners, np.broadcast_to(extent, corners.shape)], axis=1)
    flipped = np.arange(len(crops)) >= len(boxes)
    return np.tile(boxes, (len(crops) // len(boxes), 1, 1)), flipped


def mark_box(
    corner: Int[Array, "2"], extent: Int[Array, "2"], frame: tuple[int, int]
) -> Bool[Array, "h w"]:
    """Return a frame that is True inside a box, of which it shows what lies within its borders."""
    inside = [
        (jnp.arange(size) >= first) & (jnp.arange(size) < first + length)
        for size, first, length in zip(frame, corner, extent, strict=True)
    ]
    return inside[0][:, None] & inside[1]


def cut_crop(
    clip: Float[Array, "t h w 3"],
    box: Float[np.ndarray | Array, "2 2"],
    flipped: Bool[np.ndarray | Array, ""] | np.bool_,
    size: int,
) -> Float[Array, "t s s 3"]:
    """Cut one box of `crop_boxes` and resize it."""
    crop = resize_box(clip, jnp.asarray(box[0]), jnp.asarray(box[1]), size)
    return jnp.where(flipped, crop[:, :, ::-1], crop)


def fixed_crops(
    clip: Float[Array, "t h w 3"], size: int, crops: Crops
) -> Float[Array, "c t s s 3"]:
    """Return all crops, each resized to `size` x `size`, antialiased; flipped ones come last."""
    boxes, flipped = crop_boxes(clip.shape[1:3], size, crops)
    return jnp.stack([cut_crop(clip, *crop, size) for crop in zip(boxes, flipped, strict=True)])


def random_resized_crop(
    key: Key[Array, ""],
    clip: Float[Array, "t h w 3"],
    size: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Float[Array, "t s s 3"]:
    """Resize a random box of `draw_box` to `size` x `size`, antialiased."""
    return resize_box(clip, *draw_box(key, clip.shape[1:3], area, aspect), size)


def random_crop(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], size: int
) -> Float[Array, "t s s 3"]:
    """Cut `size` x `size` pixels at a random position."""
    positions = jnp.array(clip.shape[1:3]) - size + 1
    corner = jax.random.randint(key, (2,), 0, positions)
    return jax.lax.dynamic_slice(clip, (0, *corner, 0), (len(clip), size, size, 3))


def random_scaled_crop(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], size: int, scale: tuple[float, float]
) -> Float[Array, "t s s 3"]:
    """Resize the frames so that their shorter side is `scale` times `size`, and crop at random.

    The scale is uniform in the given range, which starts at 1 or above: (256 / 224, 320 / 224) is
    the scale jitter of VGG and of most supervised training.
    """
    scale_key, corner_key = jax.random.split(key)
    frame = jnp.array(clip.shape[1:3], jnp.float32)
    factor = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    extent = jnp.full(2, frame.min() / factor)
    return resize_box(clip, jax.random.uniform(corner_key, (2,)) * (frame - extent), extent, size)


def random_flip(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], probability: float
) -> Float[Array, "t h w 3"]:
    """Flip horizontally, with the given probability."""
    if probability == 0:
        return clip
    return jnp.where(jax.random.bernoulli(key, probability), clip[:, :, ::-1], clip)


def draw_box(
    key: Key[Array, ""],
    frame: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Draw the (top, left) corner and the (height, width) of a box inside a frame, in pixels.

    The area is uniform, the aspect ratio (width / height) log-uniform and the position uniform;
    none is rounded to pixels. The box is the first of ten draws that fits, or, if none does, the
    largest central box of an allowed aspect ratio.
    """
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    frame_extent = jnp.array(frame, jnp.float32)
    low, high = aspect
    areas = jax.random.uniform(area_key, (TRIES,), minval=area[0], maxval=area[1])
    logs = jax.random.uniform(aspect_key, (TRIES,), minval=np.log(low), maxval=np.log(high))
    root = jnp.sqrt(areas * frame[0] * frame[1])
    extents = jnp.stack([root * jnp.exp(-logs / 2), root * jnp.exp(logs / 2)], axis=-1)
    fits = (extents <= frame_extent).all(axis=-1)
    largest = jnp.array([min(frame[0], frame[1] / low), min(frame[1], frame[0] * high)])
    extent = jnp.where(fits.any(), extents[fits.argmax()], largest)
    position = jnp.where(fits.any(), jax.random.uniform(corner_key, (2,)), 0.5)
    return position * (frame_extent - extent), extent


def resize_box(
    clip: Float[Array, "t h w 3"],
    corner: Float[Array, "2"],
    extent: Float[Array, "2"],
    size: int,
) -> Float[Array, "t s s 3"]:
    """Resample a box to `size` x `size` by linear interpolation, antialiased where it shrinks."""
    scale = size / extent
    shape = (len(clip), size, size, 3)
    return jax.image.scale_and_translate(
        clip, shape, (1, 2), scale, -corner * scale, method="linear", antialias=True
    )
