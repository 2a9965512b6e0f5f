"""Random erasing (Zhong et al., 2017, arXiv 1708.04896): a box of a view becomes noise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from vrl_jax.augment.spatial_crops import mark_box

TRIES = 100
AREA = (0.02, 1 / 3)  # of the box, as a fraction of the frame
ASPECT = (0.3, 1 / 0.3)  # height / width


def erase_box(
    key: Key[Array, ""], view: Float[Array, "t h w 3"], probability: float
) -> Float[Array, "t h w 3"]:
    """Replace a box of a normalised view by normal noise, with the given probability.

    The box is the same in all frames, the noise differs in every value, as in timm's "pixel" mode
    and its versions for video in the released code of VideoMAE and V-JEPA 2.
    """
    apply_key, box_key, noise_key = jax.random.split(key, 3)
    applied = jax.random.bernoulli(apply_key, probability)
    box = draw_mask(box_key, view.shape[1:3])[..., None]
    return jnp.where(applied & box, jax.random.normal(noise_key, view.shape), view)


def draw_mask(key: Key[Array, ""], frame: tuple[int, int]) -> Bool[Array, "h w"]:
    """Return a frame that is True inside a random box.

    The area is uniform, the aspect ratio log-uniform and the position uniform; height and width are
    rounded to pixels. The box is the first of 100 draws that is smaller than the frame; there is
    none if no draw is.
    """
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (TRIES,), minval=AREA[0], maxval=AREA[1])
    limits = np.log(ASPECT)
    logs = jax.random.uniform(aspect_key, (TRIES,), minval=limits[0], maxval=limits[1])
    root = jnp.sqrt(area * frame[0] * frame[1])
    extents = jnp.stack([root * jnp.exp(logs / 2), root * jnp.exp(-logs / 2)], axis=-1)
    extents = jnp.round(extents).astype(jnp.int32)
    fits = (extents < jnp.array(frame)).all(-1)
    extent = jnp.where(fits.any(), extents[fits.argmax()], 0)
    corner = jax.random.randint(corner_key, (2,), 0, jnp.array(frame) - extent + 1)
    return mark_box(corner, extent, frame)
