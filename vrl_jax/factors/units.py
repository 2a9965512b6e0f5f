"""How many channels of an encoder speak of appearance, of motion, of both, of neither.

A channel is static if it says the same of two clips that share appearance but not motion, dynamic
if it says the same of two that share motion but not appearance: over many pairs, correlated.

Source: Kowal et al., CVPR 2022, arXiv 2206.02846, and its released code. From there: the
correlation with mean and variance over both halves of all pairs, the threshold of one half, the
four kinds, and that frames are shuffled to keep appearance. There, all clips were restyled, by
networks, and the halves of a dynamic pair in two of four styles; ours is the colour and texture
below, and the unstyled clip is the other half. Restyling keeps outlines, in place: a channel of
outlines counts as joint, there and here. Where factors are known, true pairs say what it is.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vrl_jax import check
from vrl_jax.factors import scuba


def restyle_clip(clip: UInt8[np.ndarray, "t h w 3"], seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the clip in other colours and with another texture, the same in all frames.

    Colours are turned, or mirrored, around mid-grey by a random orthogonal 3 x 3 matrix, and random
    stripes are laid over them at 40 %. Both are drawn anew for each clip: had all clips the same
    ones, a channel of colour would still tell two clips apart in the same way.
    """
    rng = scuba.clip_generator(clip, seed)
    turn, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.diagonal(triangle))  # without this, some turns would be likelier than others
    texture = scuba.draw_stripes(rng, clip.shape[1:3]).astype(np.float32) - 127.5
    colours = (clip.astype(np.float32) - 127.5) @ turn.astype(np.float32)
    return np.clip(np.round(127.5 + 0.6 * colours + 0.4 * texture), 0, 255).astype(np.uint8)


def correlate_channels(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "d"]:
    """Return each channel's correlation over pairs, 0 for one that is constant.

    Formula: mean((a - m)(b - m)) / v with mean m and variance v over both halves.
    """
    check.same_shape(first=first, second=second)
    both = np.concatenate([first, second]).astype(np.float64)
    mean, variance = both.mean(0), both.var(0)
    product = ((first - mean) * (second - mean)).mean(0)
    varies = variance > (1e-6 * np.abs(mean)) ** 2
    return np.where(varies, product, 0) / np.where(varies, variance, 1)


def count_units(
    static: Float[np.ndarray, "d"], dynamic: Float[np.ndarray, "d"], threshold: float
) -> list[dict[str, Any]]:
    """Return the shares of channels that are static, dynamic, joint (both) and residual (neither).

    Args:
      static: correlations over pairs that share appearance.
      dynamic: correlations over pairs that share motion.
      threshold: a correlation above it counts.
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
