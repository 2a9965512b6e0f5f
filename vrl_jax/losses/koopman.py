"""Koopman operators of clips: fit, split into static and dynamic parts, forecast.

A clip is a linear dynamical system. With its frame vectors as unit columns, `P = [z1 .. z(T-1)]`
and `Q = [z2 .. zT]`, the operator `K = Q (P'P + ridge I)^-1 P'` is d x d but has rank `n = T - 1`.
Its non-zero spectrum is that of `S = (P'P + ridge I)^-1 P'Q`, which is n x n, so the d x d matrix
is never formed. The time-invariant part is selected by a filter of S that is about 1 near the
eigenvalue 1 and about 0 elsewhere. It consists of real linear solves: it is differentiable and
batched, and needs no eigensolver.

Sources: the decomposition of clips, arXiv 2407.14069; exact dynamic mode decomposition, Tu et al.,
arXiv 1312.0041; the filter as trapezoidal contour integral of the resolvent, Chen and Li,
arXiv 2310.18043.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.losses import koopman_eig
from vrl_jax.losses.explicit_axes import with_auto_axes
from vrl_jax.losses.linear_solve import invert_batch, ridge_map, solve_batch
from vrl_jax.losses.similarity import safe_norm

POOLINGS = ("mean", "rms")
FILTERS = ("soft", "eig-hard", "eig-qr")
SCOPES = ("clip", "video", "batch")
PROJECTORS = ("oblique", "orthogonal")


class Operator(NamedTuple):
    """A Koopman operator, reduced to n x n or in full.

    Attributes:
      matrix: S, whose eigenvalues are the non-zero ones of K; or K itself, in full.
      past: unit frames 1 .. T-1 as rows (P'); None for an operator in full.
      future: unit frames 2 .. T as rows (Q'); or the columns of K as rows, in full.
      inverse: `(P'P + ridge I)^-1`; None for an operator in full.
      ridge: Tikhonov term on the diagonal of the Gram matrix.
    """

    matrix: Float[Array, "*b n n"]
    past: Float[Array, "*b n d"] | None
    future: Float[Array, "*b n d"]
    inverse: Float[Array, "*b n n"] | None
    ridge: float

    def coordinates(self, vectors: Float[Array, "*b m d"]) -> Float[Array, "*b n m"]:
        """Return `(P'P + ridge I)^-1 P' v` for each vector; Q maps it to the forecast `K v`."""
        if self.past is None:
            return jnp.swapaxes(vectors, -1, -2)
        return _ridge_fit(self.past, vectors, self.inverse, self.ridge)

    def forecast(self, vectors: Float[Array, "*b m d"]) -> Float[Array, "*b m d"]:
        """Return `K v` for each vector."""
        return _combine(self.coordinates(vectors), self.future)


class Split(NamedTuple):
    """Static and dynamic part of a clip, with statistics of its operator.

    Attributes:
      static: the time-invariant part.
      dynamic: the time-variant part.
      static_rank: trace of the filter, the effective number of static modes.
      static_share: norm of the static part relative to that of the mean frame vector.
      dynamic_share: norm of the dynamic part relative to that of the mean frame vector.
      spectral_radius: modulus of the largest eigenvalue, estimated by `|S^32|^(1/32)`.
    """

    static: Float[Array, "*b d"]
    dynamic: Float[Array, "*b d"]
    static_rank: Float[Array, "*b"]
    static_share: Float[Array, "*b"]
    dynamic_share: Float[Array, "*b"]
    spectral_radius: Float[Array, "*b"]


def fit(
    frames: Float[Array, "*b t d"], *, ridge: float = 1e-3, scope: str = "clip", delay: int = 1
) -> Operator:
    """Fit the operator that maps each unit frame vector to the next, by least squares.

    Args:
      frames: frame vectors in order, t at least 3; their norms are ignored.
      ridge: Tikhonov term on the Gram matrix of the unit frames; float32 cannot resolve it below
        1e-6.
      scope: transitions that an operator is fitted to. "clip": those of each clip; "video": those
        of all clips of a video, the third axis from the end; "batch": those of all clips, with the
        full d x d matrix, which needs more transitions than features.
      delay: consecutive frames in a state, see `stack_delays`.

    Raises:
      ValueError: fewer than three states, a ridge that is not positive, or an unknown scope.
    """
    check.one_of(SCOPES, scope=scope)
    check.at_least(2, **{"the number of axes of frames": frames.ndim})
    unit = _unit_states(frames, delay)
    check.at_least(3, **{"the number of frames": unit.shape[-2]})
    check.positive(ridge=ridge)
    past, future = unit[..., :-1, :], unit[..., 1:, :]
    if scope == "batch":
        return _fit_whole(past, future, ridge)
    if scope == "video":
        check.at_least(3, **{"the number of axes of frames of videos": frames.ndim})
        past, future = _pool_clips(past), _pool_clips(future)
    inverse = invert_batch(_products(past, past) + ridge * jnp.eye(past.shape[-2]))
    return Operator(_ridge_fit(past, future, inverse, ridge), past, future, inverse, ridge)


def stack_delays(frames: Float[Array, "*b t d"], delay: int) -> Float[Array, "*b n m"]:
    """Return states of `delay` consecutive frame vectors each, n = t - delay + 1, m = delay * d.

    A standing oscillation moves along one direction, so that an operator of single frames sees the
    real eigenvalue cos w, which is near 1 where the oscillation is slow. With a delay of 2 or more
    it sees e^(+-iw). Source: delay coordinates, Takens 1981; in dynamic mode decomposition, Tu et
    al., arXiv 1312.0041.

    Args:
      frames: frame vectors in order.
      delay: frames in a state.

    Raises:
      ValueError: fewer frames than a state has.

    >>> stack_delays(jnp.arange(4.0)[:, None], 2).astype(int).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    check.at_least(1, delay=delay)
    check.at_least(delay, **{"the number of frames": frames.shape[-2]})
    states = frames.shape[-2] - delay + 1
    return jnp.concatenate([frames[..., i : i + states, :] for i in range(delay)], axis=-1)


@jax.named_scope("koopman")
@with_auto_axes
def split(
    frames: Float[Array, "*b t d"],
    *,
    radius: float = 0.1,
    order: int = 8,
    ridge: float = 1e-3,
    pooling: str = "mean",
    stop_filter: bool = False,
    filter: str = "soft",
    scope: str = "clip",
    projector: str = "oblique",
    delay: int = 1,
) -> Split:
    """Split clips into a time-invariant and a time-variant part with Koopman operators.

    Formula: static `Q f(S) c`, dynamic `Q (I - f(S)) c` with `c = (P'P + ridge I)^-1 P' mean(z)`,
    `f(x) = 1 / (1 + ((x - 1) / radius)^order)`; with pooling "rms" the dynamic part is the root
    mean square over frames of `Q (I - f(S)) c_t` instead (oscillations cancel in a mean).

    Args:
      frames: frame vectors in order, at least 3.
      radius: radius of the disc around 1 in the complex plane whose eigenvalues are static.
      order: steepness of the filter at the edge of the disc, a multiple of 4.
      ridge: see `fit`.
      pooling: "mean" or "rms", over time, of the dynamic part.
      stop_filter: no gradient through the filter, whose slope at the edge of the disc is
        `order / (4 radius)`.
      filter: "soft" is f, by linear solves. "eig-hard" selects the eigenvectors within the radius,
        and "eig-qr" is the released code (no ridge, unitary factors instead of eigenvectors); both
        run on the host without gradient through the filter, for parity.
      scope: transitions that an operator is fitted to, see `fit`.
      projector: "oblique" is f(S). "orthogonal" projects the forecast onto the range of `Q f(S)`,
        which cannot amplify it.
      delay: consecutive frames in a state of the operator, see `stack_delays`. Parts are averaged
        over the frames of a state as well.

    Raises:
      ValueError: an argument outside its range.

    >>> constant = jnp.ones((8, 16))
    >>> parts = split(constant)
    >>> print(f"{parts.static.mean():.3f} {abs(parts.dynamic).max():.3f}")
    1.000 0.000
    """
    check.one_of(POOLINGS, pooling=pooling)
    check.one_of(FILTERS, filter=filter)
    check.one_of(PROJECTORS, projector=projector)
    if filter == "eig-qr" and (scope, projector, delay) != ("clip", "oblique", 1):
        raise ValueError(
            f"filter='eig-qr' is the released code, one clip at a time: it requires "
            f"scope='clip', projector='oblique' and delay=1, got {scope!r}, {projector!r}, {delay}"
        )
    operator = fit(frames, ridge=ridge, scope=scope, delay=delay)
    matrix = jax.lax.stop_gradient(operator.matrix) if stop_filter else operator.matrix
    if filter == "soft":
        keep = disc_filter(matrix, radius=radius, order=order)
    else:
        keep = koopman_eig.hard_filter(matrix, radius=radius)
    frames = frames.astype(jnp.float32)
    coordinates = operator.coordinates(stack_delays(frames, delay))
    if filter == "eig-qr":
        maps = koopman_eig.released_code_operators(_unit(frames), radius=radius)
        static_frames, dynamic_frames = (
            jnp.einsum("...ij,...tj->...ti", x, frames, precision="highest") for x in maps
        )
    elif projector == "orthogonal":
        forecasts = _combine(coordinates, operator.future)
        static_frames = _project(keep, operator.future, forecasts)
        dynamic_frames = forecasts - static_frames
    else:
        static_coordinates = jnp.matmul(keep, coordinates, precision="highest")
        dynamic_frames = _combine(coordinates - static_coordinates, operator.future)
        static_frames = _combine(static_coordinates, operator.future)
    if delay > 1:  # from states to frames
        static_frames, dynamic_frames = (
            x.reshape(*x.shape[:-2], -1, frames.shape[-1]) for x in (static_frames, dynamic_frames)
        )
    static, dynamic = jnp.mean(static_frames, axis=-2), _pool(dynamic_frames, pooling)
    whole = safe_norm(jnp.mean(frames, axis=-2))[..., 0]
    return Split(
        static,
        dynamic,
        static_rank=_of_clips(jnp.trace(keep, axis1=-2, axis2=-1), frames),
        static_share=safe_norm(static)[..., 0] / whole,
        dynamic_share=safe_norm(dynamic)[..., 0] / whole,
        spectral_radius=_of_clips(_spectral_radius(operator.matrix), frames),
    )


def disc_filter(
    matrix: Float[Array, "*b n n"], *, radius: float, order: int
) -> Float[Array, "*b n n"]:
    """Return `f(S) = (I + ((S - I) / radius)^order)^-1`, a soft projector on eigenvalues near 1.

    In partial fractions, with `x = (S - I) / radius` and `c_k = cos(pi (2k - 1) / order)`, it is
    the sum of `2 / order (1 - c_k x) / (x^2 - 2 c_k x + 1)` over k = 1 .. order / 2. The zeros of
    the quadratics lie on the edge of the disc, away from the real axis. Their inverses, computed as
    one batch, are well conditioned; that of the power is not.

    Args:
      matrix: S.
      radius: distance from 1 at which the filter is one half.
      order: exponent, a multiple of 4; at twice the radius the filter is `2^-order`.

    Raises:
      ValueError: an argument outside its range.
    """
    check.positive(radius=radius)
    if order < 4 or order % 4:
        raise ValueError(f"order must be a multiple of 4, got {order!r}")
    cosine = np.cos(np.pi * np.arange(1, order, 2, np.float32) / order)[:, None, None]
    eye = jnp.eye(matrix.shape[-1])
    offset = ((matrix - eye) / radius)[..., None, :, :]
    square = jnp.matmul(offset, offset, precision="highest")
    inverse = invert_batch(square - 2 * cosine * offset + eye)
    terms = jnp.matmul(inverse, eye - cosine * offset, precision="highest")
    return jnp.sum(terms, axis=-3) * 2 / order


@jax.named_scope("koopman")
@with_auto_axes
def forecast_residual(
    frames: Float[Array, "*b t d"], *, ridge: float = 1e-3, held_out: int = 2, delay: int = 1
) -> Float[Array, ""]:
    """Return the forecast error on a clip's last transitions: the loss of the inner level.

    Formula: fit K on all but the last `held_out` transitions, then the mean over clips of
    `sum |K z_h - z_(h+1)|^2 / held_out` over those left out, on unit frames; gradients flow through
    fit and targets. The residual on the fitted transitions would be void: it is zero for any frames
    if d is at least t - 1. Constant frames give about 0, so combine it with a contrastive loss.

    Args:
      frames: frame vectors in order, at least `held_out + delay + 2`.
      ridge: see `fit`.
      held_out: number of transitions left out of the fit, at least 1.
      delay: see `fit`; only the newest frame of a state is a target, as the others are known.

    Raises:
      ValueError: too few frames.

    >>> turn = jnp.arange(8.0)[:, None] * 0.5 + jnp.array([0.0, jnp.pi / 2])
    >>> print(f"{forecast_residual(jnp.cos(turn)):.3f}")  # a rotation is linear
    0.000
    """
    check.at_least(1, held_out=held_out)
    check.at_least(held_out + delay + 2, **{"the number of frames": frames.shape[-2]})
    unit = _unit_states(frames, delay)
    operator = fit(unit[..., :-held_out, :], ridge=ridge)
    targets = unit[..., -held_out:, :]
    errors = operator.forecast(unit[..., -held_out - 1 : -1, :]) - targets
    newest = errors[..., -frames.shape[-1] :]
    return delay * jnp.mean(jnp.sum(newest**2, axis=(-2, -1))) / held_out


@with_auto_axes
def mean_residual_split(
    frames: Float[Array, "*b t d"], *, degree: int = 0, unit: bool = False
) -> Split:
    """Split without an operator, as control: temporal mean, and root mean square of the residual.

    `split` must beat it to show that the operator separates the parts rather than the pooling. The
    statistics of the operator are zero.

    Args:
      frames: frame vectors in order.
      degree: of the polynomial in time that is subtracted before the residual is pooled: 0 is the
        mean, 1 a linear trend, 2 a quadratic one.
      unit: scale frames to unit length first, so that their gain does not count; `split` fits its
        operator to such frames.

    Raises:
      ValueError: a degree below 0, or not below the number of frames.

    >>> parts = mean_residual_split(jnp.ones((8, 16)))
    >>> print(f"{parts.static.mean():.3f} {abs(parts.dynamic).max():.3f}")
    1.000 0.000
    """
    check.at_least(0, degree=degree)
    check.at_least(degree + 1, **{"the number of frames": frames.shape[-2]})
    frames = _unit(frames) if unit else frames.astype(jnp.float32)
    static = jnp.mean(frames, axis=-2)
    residual = frames - static[..., None, :]
    if degree:
        powers = np.vander(np.linspace(-1, 1, frames.shape[-2]), degree + 1, increasing=True)
        trend = jnp.asarray(np.linalg.qr(powers)[0][:, 1:].T, jnp.float32)  # the mean is gone
        weights = jnp.einsum("kt,...td->...kd", trend, residual, precision="highest")
        residual -= jnp.einsum("kt,...kd->...td", trend, weights, precision="highest")
    dynamic = _pool(residual, "rms")
    share = safe_norm(dynamic)[..., 0] / safe_norm(static)[..., 0]
    none = jnp.zeros_like(share)
    return Split(static, dynamic, none, none + 1, share, none)


def slowest_standing_rate(radius: float) -> float:
    """Return the rate, in radians per frame, below which a radius counts standing waves as static.

    An oscillation along one direction has the eigenvalue cos w in an operator of single frames, and
    |cos w - 1| is at most the radius up to w = arccos(1 - radius).

    >>> print(f"{slowest_standing_rate(0.3):.3f}")
    0.795
    """
    return math.acos(max(1 - radius, -1.0))


def _unit_states(frames: Float[Array, "*b t d"], delay: int) -> Float[Array, "*b n m"]:
    """Return states of unit frames, see `stack_delays`, scaled to unit length."""
    unit = _unit(frames)
    return _unit(stack_delays(unit, delay)) if delay > 1 else unit


def _unit(frames: Float[Array, "*b t d"]) -> Float[Array, "*b t d"]:
    """Scale frames to unit length, except frames that are negligible within their clip.

    Without the floor, a frame that is zero because of a dead layer would have a gradient of 1e6.
    """
    frames = frames.astype(jnp.float32)
    size = jnp.mean(jnp.sum(frames**2, axis=-1, keepdims=True), axis=-2, keepdims=True)
    return frames / jnp.sqrt(
        jnp.sum(frames**2, axis=-1, keepdims=True) + 1e-6 * jax.lax.stop_gradient(size) + 1e-12
    )


def _ridge_fit(
    past: Float[Array, "*b n d"],
    targets: Float[Array, "*b m d"],
    inverse: Float[Array, "*b n n"],
    ridge: float,
) -> Float[Array, "*b n m"]:
    """Return `(P'P + ridge I)^-1 P' w` for targets w, with one step of iterative refinement.

    The Gram matrix halves the accurate digits. The second product acts on a residual computed from
    the frames (corrected semi-normal equations: Bjorck 1987).
    """
    estimate = jnp.matmul(inverse, _products(past, targets), precision="highest")
    residual = _products(past, targets - _combine(estimate, past)) - ridge * estimate
    return estimate + jnp.matmul(inverse, residual, precision="highest")


def _pool_clips(rows: Float[Array, "*b v n d"]) -> Float[Array, "*b v m d"]:
    """Return for each clip the transitions of all clips of its video."""
    joined = rows.reshape(*rows.shape[:-3], 1, -1, rows.shape[-1])
    return jnp.broadcast_to(joined, (*rows.shape[:-2], *joined.shape[-2:]))


def _fit_whole(past: Float[Array, "*b n d"], future: Float[Array, "*b n d"], ridge: float):
    """Fit one d x d operator to all transitions, with the ridge of one clip times their number."""
    clips = math.prod(past.shape[:-2])
    past, future = (rows.reshape(-1, rows.shape[-1]) for rows in (past, future))
    columns = ridge_map(past, future, clips * ridge)
    return Operator(columns.T, None, columns, None, ridge)


def _project(
    keep: Float[Array, "*b n n"], future: Float[Array, "*b n d"], vectors: Float[Array, "*c m d"]
) -> Float[Array, "*c m d"]:
    """Return orthogonal projections of vectors onto the range of `Q f(S)`."""
    basis = _combine(keep, future)
    gram = _products(basis, basis) + 1e-2 * jnp.eye(basis.shape[-2])
    gram = jnp.broadcast_to(gram, (*vectors.shape[:-2], *gram.shape[-2:]))
    return _combine(solve_batch(gram, _products(basis, vectors)), basis)


def _of_clips(x: Array, frames: Float[Array, "*b t d"]) -> Float[Array, "*b"]:
    """Broadcast numbers of shared operators to their clips."""
    return jnp.broadcast_to(x, frames.shape[:-2])


def _products(a: Float[Array, "*#b n d"], b: Float[Array, "*#b m d"]) -> Float[Array, "... n m"]:
    return jnp.einsum("...nd,...md->...nm", a, b, precision="highest")


def _combine(
    weights: Float[Array, "*#b n m"], vectors: Float[Array, "*#b n d"]
) -> Float[Array, "... m d"]:
    return jnp.einsum("...nm,...nd->...md", weights, vectors, precision="highest")


def _pool(frames: Float[Array, "*b t d"], pooling: str) -> Float[Array, "*b d"]:
    if pooling == "mean":
        return jnp.mean(frames, axis=-2)
    # Relative to the clip's scale, so that an absent part has a finite gradient.
    floor = 1e-6 * jax.lax.stop_gradient(jnp.mean(frames**2, axis=(-2, -1)))[..., None] + 1e-12
    return jnp.sqrt(jnp.mean(frames**2, axis=-2) + floor)


def _spectral_radius(matrix: Float[Array, "*b n n"]) -> Float[Array, "*b"]:
    """Return `|S^32|^(1/32)`, an estimate of the largest |eigenvalue|, without overflow."""
    matrix = jax.lax.stop_gradient(matrix)

    def double(doubling, carry):
        matrix, log_size = carry
        size = jnp.sqrt(jnp.sum(matrix**2, axis=(-2, -1))) + 1e-30
        matrix = matrix / size[..., None, None]
        log_size += jnp.log(size) / 2.0**doubling
        return jnp.matmul(matrix, matrix, precision="highest"), log_size

    return jnp.exp(jax.lax.fori_loop(0, 6, double, (matrix, jnp.zeros(matrix.shape[:-2])))[1])
