"""Losses that make features linearly predictable: the lower level of BOD-VCL.

The linear operator is fitted per clip, or shared by all clips of a batch. The difference matters:
an operator fitted per clip can itself encode the motion, so the features need not. A shared
operator can forecast a frame only from features that encode the direction of motion.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses import koopman
from vrl_jax.losses.explicit_axes import with_auto_axes
from vrl_jax.losses.linear_solve import ridge_map
from vrl_jax.losses.similarity import normalize


class Forecast(NamedTuple):
    """Loss and accuracy of a linear forecast.

    Attributes:
      loss: to be minimised.
      accuracy: share of forecasts that are nearest to the right frame of their clip.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


@with_auto_axes
def shared_forecast(
    frames: Float[Array, "*b t d"],
    *,
    ahead: int = 4,
    ridge: float = 1e-2,
    temperature: float = 0.1,
) -> Forecast:
    """Contrastive forecast: one operator for all clips predicts the frame `ahead` frames later.

    Formula: K is the ridge fit of `z_(h + ahead)` on `z_h`, unit vectors, over all clips and frames
    (second moments averaged); the loss is the mean cross-entropy of `softmax_j(cos(K z_h, z_j) /
    temperature)`, j over all frames of the clip, with target `j = h + ahead`. Gradients flow
    through the fit. Appearance cannot lower the loss, because the frames of a clip share it. Nor
    can similarity to the current frame, because past and future frames are equally similar: only
    features that encode the direction of motion can.

    Args:
      frames: frame vectors in order, t above `ahead`; their norms are ignored.
      ahead: number of frames between a frame and its target.
      ridge: added to the second moments, relative to their mean eigenvalue.
      temperature: divides the cosines.

    Raises:
      ValueError: too few frames, or an argument outside its range.

    >>> turn = jnp.arange(8.0)[:, None] * 0.7 + jnp.array([0.0, jnp.pi / 2])
    >>> forecast = shared_forecast(jnp.cos(turn)[None], ahead=1)  # a rotation is linear
    >>> print(f"{forecast.accuracy:.2f}")
    1.00
    """
    check.at_least(2, **{"the number of axes of frames": frames.ndim})
    check.at_least(1, ahead=ahead)
    check.at_least(ahead + 1, **{"the number of frames": frames.shape[-2]})
    check.positive(ridge=ridge, temperature=temperature)
    z = normalize(frames.astype(jnp.float32))
    z = z.reshape(-1, *z.shape[-2:])
    clips, length, width = z.shape
    past, future = z[:, :-ahead], z[:, ahead:]
    rows = clips * (length - ahead)
    operator = ridge_map(
        past.reshape(rows, width), future.reshape(rows, width), ridge * rows / width
    )
    forecast = normalize(jnp.matmul(past, operator, precision="highest"))
    logits = jnp.einsum("nhd,njd->nhj", forecast, z, precision="highest") / temperature
    comes = jnp.arange(length - ahead) + ahead
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), comes[None, :, None], axis=-1)
    return Forecast(-jnp.mean(picked), jnp.mean(jnp.argmax(logits, axis=-1) == comes))


@with_auto_axes
def cross_forecast(
    first: Float[Array, "*b t d"], second: Float[Array, "*b t d"], *, ridge: float = 1e-3
) -> Float[Array, ""]:
    """Return the forecast error on one clip of a video with the operator of its other clip.

    Formula: mean over clips and transitions of `|K z_h - z_(h+1)|^2`, unit frames of `second`, K
    fitted to `first`.

    Args:
      first: frame vectors of one clip of each video, at least 3.
      second: frame vectors of another clip of the same videos.
      ridge: see `koopman.fit`.

    Raises:
      ValueError: shapes that do not match, or too few frames.

    >>> turn = jnp.arange(8.0)[:, None] * 0.5 + jnp.array([0.0, jnp.pi / 2])
    >>> print(f"{cross_forecast(jnp.cos(turn), jnp.cos(turn + 1), ridge=1e-6):.3f}")
    0.000
    """
    check.same_shape(first=first, second=second)
    other = koopman.fit(second, ridge=ridge)
    errors = koopman.fit(first, ridge=ridge).forecast(other.past) - other.future
    return jnp.mean(jnp.sum(errors**2, axis=-1))


@with_auto_axes
def released_code_residual(frames: Float[Array, "*b t d"]) -> Float[Array, ""]:
    """Residual of the released code: the norm of `K sg(P) - Q` on the fitted transitions.

    Formula: the Frobenius norm over the whole batch, frames not normalised, K the least-squares
    operator of each clip. It is zero for any features at least as wide as there are transitions;
    its gradient is then rounding noise, so this case is refused.

    Args:
      frames: frame vectors in order, t - 1 above d.

    Raises:
      ValueError: d is at least t - 1, so the loss would be void.

    >>> print(f"{released_code_residual(jnp.ones((2, 6, 1))):.3f}")
    0.000
    """
    transitions, width = frames.shape[-2] - 1, frames.shape[-1]
    if width >= transitions:
        raise ValueError(
            f"the literal forecast loss is zero for any features at least as wide as a clip "
            f"has transitions: got width {width} and {transitions} transitions. Use "
            f"forecast='held_out', narrower heads or longer clips"
        )
    frames = frames.astype(jnp.float32)
    past, future = frames[..., :-1, :], frames[..., 1:, :]
    size = jnp.sum(past**2, axis=(-2, -1)) / width
    operator = ridge_map(past, future, 1e-6 * size)
    forecast = jnp.matmul(jax.lax.stop_gradient(past), operator, precision="highest")
    return jnp.sqrt(jnp.sum((forecast - future) ** 2) + 1e-12)
