"""Static and dynamic units: channels that encode appearance, motion, both or neither.

A channel is static if its responses correlate over pairs of clips that share appearance but not
motion, and dynamic if they correlate over pairs that share motion but not appearance.

Source: Kowal et al., CVPR 2022, arXiv 2206.02846, and its released code. Taken from there: the
correlation with mean and variance over both clips of all pairs, the threshold of one half, the four
kinds of units, and shuffled frames as pairs that share appearance. Different here: Kowal et al.
restyle all clips with a style-transfer network, and pair two of four styles; we pair the original
clip with one in other colours and with a texture (`restyle_clip`). Restyling preserves outlines, so
in both versions a channel that encodes outlines counts as joint. Datasets with known factors
provide exact pairs.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vrl_jax import check
from vrl_jax.factors import scuba


def restyle_clip(clip: UInt8[np.ndarray, "t h w 3"], seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the clip in other colours and with another texture, the same in all frames.

    Colours are rotated, or reflected, around mid-grey by a random orthogonal 3 x 3 matrix, and
    blended with 40 % of random stripes. Both are sampled per clip: under a common transform the
    responses of a colour channel would still correlate.
    """
    rng = scuba.clip_generator(clip, seed)
    rotation, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.diagonal(triangle))  # makes the distribution uniform
    texture = scuba.draw_stripes(rng, clip.shape[1:3]).astype(np.float32) - 127.5
    colours = (clip.astype(np.float32) - 127.5) @ rotation.astype(np.float32)
    return np.clip(np.round(127.5 + 0.6 * colours + 0.4 * texture), 0, 255).astype(np.uint8)


def correlate_channels(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "d"]:
    """Return the correlation of each channel over pairs of clips, 0 for a constant channel.

    Formula: mean((a - m)(b - m)) / v with mean m and variance v over both clips of all pairs.
    """
    check.same_shape(first=first, second=second)
    both = np.concatenate([first, second]).astype(np.float64)
    mean, variance = both.mean(0), both.var(0)
    product = ((first - mean) * (second - mean)).mean(0)
    varies = variance > (1e-6 * np.abs(mean)) ** 2
    return np.where(varies, product, 0) / np.where(varies, variance, 1)


def unit_shares(
    static: Float[np.ndarray, "d"], dynamic: Float[np.ndarray, "d"], threshold: float
) -> list[dict[str, Any]]:
    """Return the shares of channels that are static, dynamic, joint (both) and residual (neither).

    Args:
      static: correlations over pairs that share appearance.
      dynamic: correlations over pairs that share motion.
      threshold: correlation above which a channel is static or dynamic.
    """
    appearance, motion = static > threshold, dynamic > threshold
    kinds = {
        "static": appearance & ~motion,
        "dynamic": motion & ~appearance,
        "joint": appearance & motion,
        "residual": ~(appearance | motion),
    }
    return [
        {
            "name": f"units/{kind}",
            "value": float(members.mean()),
            "metric": "share of units",
            "threshold": threshold,
        }
        for kind, members in kinds.items()
    ]
