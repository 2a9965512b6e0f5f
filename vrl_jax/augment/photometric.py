"""Photometric augmentation: colour jitter, grayscale, blur, background subtraction, normalisation.

Each operation is a pure function of one clip with values in [0, 1]; all frames share its random
parameters. A batch is a `vmap`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, rounded as in torchvision


def subtract_background(clip: Float[Array, "t h w 3"]) -> Float[Array, "t h w 3"]:
    """Subtract the temporal mean of the clip from its frames, centred at 0.5, clipped to [0, 1].

    If the pixels are modelled as a linear dynamical system, this removes the mode of eigenvalue 1.
    """
    return jnp.clip(0.5 + clip - clip.mean(0), 0, 1)


def color_jitter(
    key: Key[Array, ""],
    clip: Float[Array, "t h w 3"],
    probability: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float[Array, "t h w 3"]:
    """Jitter brightness, contrast, saturation and hue in random order, with the given probability.

    As torchvision's ColorJitter: the first three are `f x + (1 - f) reference`, clipped to [0, 1],
    with f uniform. The reference is black, the mean gray level (of the whole clip, so that all
    frames change alike) and the gray level of the pixel. Hue is shifted in HSV. An operation of
    strength 0 is skipped.

    Under `vmap` a random order would evaluate every operation at every position. Since the three
    blends share one formula, they are assigned to slots before and after a single hue shift; an
    empty slot is the identity.
    """
    if probability == 0:
        return clip
    apply_key, factor_key, hue_key, order_key = jax.random.split(key, 4)
    applied = jax.random.bernoulli(apply_key, probability)
    kinds = ((brightness, jnp.zeros_like), (contrast, jnp.mean), (saturation, lambda gray: gray))
    references = [reference for strength, reference in kinds if strength > 0]
    strength = np.array([strength for strength, _ in kinds if strength > 0], np.float32)
    n = len(references)
    factor = jax.random.uniform(
        factor_key, (n,), minval=np.maximum(0, 1 - strength), maxval=1 + strength
    )
    order = jax.random.permutation(order_key, n + 1)  # of the blends; the last entry is hue
    slot = jnp.where(order[:n] < order[n], order[:n], order[:n] + n - 1)
    shares = applied * (1 - factor) * jax.nn.one_hot(slot, 2 * n, axis=0)  # [slot, blend]

    def blend(planes: Array, share: Array) -> tuple[Array, None]:
        gray = _to_gray(planes)
        added = sum(share[i] * reference(gray) for i, reference in enumerate(references))
        return jnp.clip((1 - share.sum()) * planes + added, 0, 1), None

    planes = jnp.moveaxis(clip, -1, 0)  # four times as fast as channels last on CPU
    planes, _ = jax.lax.scan(blend, planes, shares[:n])
    if hue > 0:
        planes = shift_hue(planes, applied * jax.random.uniform(hue_key, minval=-hue, maxval=hue))
    planes, _ = jax.lax.scan(blend, planes, shares[n:])
    return jnp.moveaxis(planes, 0, -1)


def shift_hue(planes: Float[Array, "3 t h w"], turns: Float[Array, ""]) -> Float[Array, "3 t h w"]:
    """Shift the hue by `turns` of the colour circle, with HSV saturation and value unchanged.

    Let V be the maximum and C the range of the channels of a pixel, and H its shifted hue in sixths
    of a turn. Channel n ∈ (5, 3, 1) becomes V - C clip(min(k, 4 - k), 0, 1), k = (n + H) mod 6.
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
    """Convert to grayscale with three equal channels, with the given probability.

    `kind` "luma" weights the channels by ITU-R BT.601; "channel" copies one random channel, the
    same for the whole clip.
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
    """Blur each frame, with the given probability.

    The standard deviation, in pixels, is uniform in `sigma`. Frames are not padded: at the border
    the kernel is truncated and renormalised.
    """
    if probability == 0:
        return clip
    apply_key, sigma_key = jax.random.split(key)
    applied = jax.random.bernoulli(apply_key, probability)
    std = jax.random.uniform(sigma_key, minval=sigma[0], maxval=sigma[1])

    def weights(n: int) -> Array:
        distance = np.arange(n)[:, None] - np.arange(n)
        kernel = jax.nn.softmax(-(distance**2) / (2 * std**2), axis=-1)
        return jnp.where(applied, kernel, jnp.eye(n))

    _, h, w, _ = clip.shape
    return jnp.einsum("yh,xw,thwc->tyxc", weights(h), weights(w), clip, precision="highest")


def normalize(
    clip: Float[Array, "*t h w 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Array, "*t h w 3"]:
    """Subtract the mean and divide by the standard deviation, per channel."""
    return (clip - np.array(mean, np.float32)) / np.array(std, np.float32)


def _to_gray(planes: Array) -> Array:
    return sum(weight * plane for weight, plane in zip(LUMA, planes, strict=True))
