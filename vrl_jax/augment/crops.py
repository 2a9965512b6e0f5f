"""Which part of the frames a view shows: random boxes to train on, fixed ones to be judged by."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from vrl_jax import check

TRIES = 10
PLACES = {"center": ((0.5, 0.5),), "three": ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0))}
PLACES["ten"] = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


@dataclass(frozen=True)
class Crops:
    """The squares of a frame that a video is judged by.

    Attributes:
      places: "center"; "three": both ends and the middle of the longer side, and of the shorter
        where `share` leaves room; "ten": the four corners and the centre, each mirrored as well.
      share: a square's side over the frame's shorter side.
    """

    places: str = "center"
    share: float = 1.0

    def __post_init__(self):
        check.one_of(tuple(PLACES), places=self.places)
        check.positive(share=self.share)
        check.fraction(share=self.share)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(PLACES[self.places]) * (2 if self.places == "ten" else 1)


def crop_boxes(
    frame: tuple[int, int], size: int, crops: Crops
) -> tuple[Float[np.ndarray, "c 2 2"], Bool[np.ndarray, "c"]]:
    """Return the (corner, extent) of each square in a frame, and whether it is mirrored."""
    whole = np.array(frame, np.float32)
    extent = np.full(2, crops.share * whole.min(), np.float32)
    corners = np.array(PLACES[crops.places], np.float32) * (whole - extent)
    if np.allclose(extent, size):
        corners = np.floor(corners + 0.5)
    boxes = np.stack([corners, np.broadcast_to(extent, corners.shape)], axis=1)
    mirrored = np.arange(len(crops)) >= len(boxes)
    return np.tile(boxes, (len(crops) // len(boxes), 1, 1)), mirrored


def one_crop(
    clip: Float[Array, "t h w 3"],
    box: Float[np.ndarray | Array, "2 2"],
    mirrored: Bool[np.ndarray | Array, ""] | np.bool_,
    size: int,
) -> Float[Array, "t s s 3"]:
    """Cut one square of `crop_boxes` and resize it."""
    cut = resize_box(clip, jnp.asarray(box[0]), jnp.asarray(box[1]), size)
    return jnp.where(mirrored, cut[:, :, ::-1], cut)


def fixed_crops(
    clip: Float[Array, "t h w 3"], size: int, crops: Crops
) -> Float[Array, "c t s s 3"]:
    """Cut the squares and resize each to `size`, antialiased; mirrored ones come last.

    A square that needs no resizing lies on whole pixels: between them it would be blurred.
    """
    boxes, mirrored = crop_boxes(clip.shape[1:3], size, crops)
    return jnp.stack([one_crop(clip, *each, size) for each in zip(boxes, mirrored, strict=True)])


def random_resized_crop(
    key: Key[Array, ""],
    clip: Float[Array, "t h w 3"],
    size: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Float[Array, "t s s 3"]:
    """Cut a random box, not rounded to pixels, and resize it to `size` squared, antialiased."""
    return resize_box(clip, *draw_box(key, clip.shape[1:3], area, aspect), size)


def random_crop(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], size: int
) -> Float[Array, "t s s 3"]:
    """Cut `size` x `size` pixels at a random place."""
    places = jnp.array(clip.shape[1:3]) - size + 1
    top, left = jax.random.randint(key, (2,), 0, places)
    return jax.lax.dynamic_slice(clip, (0, top, left, 0), (len(clip), size, size, 3))


def random_scaled_crop(
    key: Key[Array, ""], clip: Float[Array, "t h w 3"], size: int, scale: tuple[float, float]
) -> Float[Array, "t s s 3"]:
    """Cut `size` pixels each way from frames whose shorter side is first made `scale` times that.

    The factor is uniform: (256 / 224, 320 / 224) is the scale jitter of VGG and of most supervised
    training. It is never below 1.
    """
    scale_key, place_key = jax.random.split(key)
    frame = jnp.array(clip.shape[1:3], jnp.float32)
    factor = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    extent = jnp.full(2, frame.min() / factor)
    return resize_box(clip, jax.random.uniform(place_key, (2,)) * (frame - extent), extent, size)


def draw_box(
    key: Key[Array, ""],
    frame: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Draw the (top, left) corner and the (height, width) of a box inside a frame, in pixels.

    The share of the area is uniform, width / height log-uniform, the place uniform. The first of
    ten draws that fits is taken; if none does, the greatest central box of an allowed aspect.
    """
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    frame_extent = jnp.array(frame, jnp.float32)
    low, high = aspect
    areas = jax.random.uniform(area_key, (TRIES,), minval=area[0], maxval=area[1])
    logs = jax.random.uniform(aspect_key, (TRIES,), minval=np.log(low), maxval=np.log(high))
    root = jnp.sqrt(areas * frame[0] * frame[1])
    tries = jnp.stack([root * jnp.exp(-logs / 2), root * jnp.exp(logs / 2)], axis=-1)
    fits = (tries <= frame_extent).all(axis=-1)
    greatest = jnp.array([min(frame[0], frame[1] / low), min(frame[1], frame[0] * high)])
    extent = jnp.where(fits.any(), tries[fits.argmax()], greatest)
    place = jnp.where(fits.any(), jax.random.uniform(corner_key, (2,)), 0.5)
    return place * (frame_extent - extent), extent


def resize_box(
    clip: Float[Array, "t h w 3"],
    corner: Float[Array, "2"],
    extent: Float[Array, "2"],
    size: int,
) -> Float[Array, "t s s 3"]:
    """Resample the box to `size` squared by a triangle kernel, widened where it shrinks."""
    scale = size / extent
    shape = (len(clip), size, size, 3)
    return jax.image.scale_and_translate(
        clip, shape, (1, 2), scale, -corner * scale, method="linear", antialias=True
    )
