"""Losses that make features linearly predictable: the lower level of BOD-VCL.

Every clip may have an operator of its own, or all clips of a batch share one. The difference
matters: what moves, and which way, can stay in a clip's own operator and need not be in its
features at all, whereas a shared operator can forecast a frame only from features that say where
things go.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses import koopman
from vrl_jax.losses.linear_solve import ridge_map
from vrl_jax.losses.similarity import normalize


class Forecast(NamedTuple):
    """How well frames follow from earlier ones.

    Attributes:
      loss: to be minimised.
      accuracy: share of forecasts that are nearest to the right frame of their clip.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


def shared_forecast(
    frames: Float[Array, "*b t d"],
    *,
    ahead: int = 4,
    ridge: float = 1e-2,
    temperature: float = 0.1,
) -> Forecast:
    """One operator for all clips tells which of a clip's own frames comes `ahead` frames later.

    Formula: K is the ridge fit of `z_(h + ahead)` by `z_h` over all clips and frames, unit vectors,
    their second moments averaged; the loss is the mean cross-entropy of `softmax_j(cos(K z_h, z_j)
    / temperature)`, j over all frames of the clip, with the frame that comes. Gradients flow
    through the fit. Neither appearance, which a clip's frames share, nor a constant helps; and
    frames before and after lie equally near, so only features that tell a direction do.

    Args:
      frames: frame vectors in order, t above `ahead`; the length of each is ignored.
      ahead: frames from one to the forecast one.
      ridge: added to the second moments, relative to their mean eigenvalue.
      temperature: divides the cosines.

    Raises:
      ValueError: too few frames, or an argument outside its range.

    >>> turn = jnp.arange(8.0)[:, None] * 0.7 + jnp.array([0.0, jnp.pi / 2])
    >>> found = shared_forecast(jnp.cos(turn)[None], ahead=1)  # a rotation is linear
    >>> print(f"{found.accuracy:.2f}")
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


def cross_forecast(
    first: Float[Array, "*b t d"], second: Float[Array, "*b t d"], *, ridge: float = 1e-3
) -> Float[Array, ""]:
    """How badly a video's one clip follows by the operator of its other clip.

    Formula: mean over clips and transitions of `|K z_h - z_(h+1)|^2`, unit frames of `second`, K
    fitted to `first`.

    Args:
      first: frame vectors of one clip of each video, at least 3.
      second: of another clip of the same videos.
      ridge: see `koopman.fit`.

    Raises:
      ValueError: the shapes do not fit, or too few frames.

    >>> turn = jnp.arange(8.0)[:, None] * 0.5 + jnp.array([0.0, jnp.pi / 2])
    >>> print(f"{cross_forecast(jnp.cos(turn), jnp.cos(turn + 1), ridge=1e-6):.3f}")
    0.000
    """
    check.same_shape(first=first, second=second)
    other = koopman.fit(second, ridge=ridge)
    errors = koopman.fit(first, ridge=ridge).forecast(other.past) - other.future
    return jnp.mean(jnp.sum(errors**2, axis=-1))


def released_code_residual(frames: Float[Array, "*b t d"]) -> Float[Array, ""]:
    """The residual of the published code: the norm of `K sg(P) - Q` on the fitted transitions.

    Formula: the Frobenius norm over the whole batch, frames at their own length, K the
    least-squares operator of each clip. It is zero for any features at least as wide as there are
    transitions, and then its gradient is rounding noise, so that is refused.

    Args:
      frames: frame vectors in order, t - 1 above d.

    Raises:
      ValueError: the loss is void: d is at least t - 1.

    >>> print(f"{released_code_residual(jnp.ones((2, 6, 1))):.3f}")
    0.000
    """
    transitions, width = frames.shape[-2] - 1, frames.shape[-1]
    if width >= transitions:
        raise ValueError(
            f"the literal forecast loss is zero for any features once they are as wide as a clip "
            f"has transitions: got width {width} and {transitions} transitions. Take "
            f"forecast='held_out', narrower heads or longer clips"
        )
    frames = frames.astype(jnp.float32)
    past, future = frames[..., :-1, :], frames[..., 1:, :]
    size = jnp.sum(past**2, axis=(-2, -1)) / width
    operator = ridge_map(past, future, 1e-6 * size)
    forecast = jnp.matmul(jax.lax.stop_gradient(past), operator, precision="highest")
    return jnp.sqrt(jnp.sum((forecast - future) ** 2) + 1e-12)
