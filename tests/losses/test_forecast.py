import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jitted import jitted
from vrl_jax.losses import koopman
from vrl_jax.losses.forecast import cross_forecast, released_code_residual, shared_forecast

forecast_shared = jitted(shared_forecast)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def shared_by_loops(frames, ahead, ridge, temperature):
    z = unit(frames.astype(np.float64)).reshape(-1, *frames.shape[-2:])
    clips, length, width = z.shape
    gram, cross, count = np.zeros((width, width)), np.zeros((width, width)), 0
    for clip in z:
        for h in range(length - ahead):
            gram += np.outer(clip[h], clip[h])
            cross += np.outer(clip[h], clip[h + ahead])
            count += 1
    operator = np.linalg.solve(gram / count + ridge / width * np.eye(width), cross / count)
    losses, right = [], []
    for clip in z:
        for h in range(length - ahead):
            forecast = unit(clip[h] @ operator)
            logits = clip @ forecast / temperature
            losses.append(np.log(np.exp(logits).sum()) - logits[h + ahead])
            right.append(np.argmax(logits) == h + ahead)
    return np.mean(losses), np.mean(right)


@pytest.mark.parametrize("shape, ahead", [((3, 6, 4), 1), ((2, 3, 9, 5), 4)])
def test_shared_forecast_agrees_with_loops(rng, shape, ahead):
    frames = np.cumsum(rng.normal(size=shape), axis=-2).astype(np.float32)
    got = forecast_shared(frames, ahead=ahead, temperature=0.3)
    loss, accuracy = shared_by_loops(frames, ahead, 1e-2, 0.3)
    assert float(got.loss) == pytest.approx(loss, rel=1e-3)
    assert float(got.accuracy) == pytest.approx(accuracy)


def rotations(rng, clips, coded):
    """Return clips that turn either way; `coded` frames say which way, the others do not."""
    way = np.where(np.arange(clips) % 2, 1.0, -1.0)[:, None]
    angle = rng.uniform(0, 2 * np.pi, (clips, 1)) + 0.4 * way * np.arange(12)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    right = (way > 0)[..., None] if coded else 1
    return np.concatenate([circle * right, circle * (1 - right)], axis=-1, dtype=np.float32)


def test_a_shared_operator_wants_the_direction_in_the_features_and_a_clip_s_own_does_not(rng):
    plain, coded = (rotations(rng, 64, coded) for coded in (False, True))
    own = jitted(koopman.forecast_residual)
    assert float(own(plain, ridge=1e-5)) < 1e-3
    assert float(own(coded, ridge=1e-5)) < 1e-3
    settings = {"ahead": 2, "ridge": 1e-4, "temperature": 0.1}
    assert float(forecast_shared(coded, **settings).accuracy) > 0.99
    assert float(forecast_shared(plain, **settings).accuracy) < 0.6


def test_appearance_and_constants_do_not_help(rng):
    constant = np.repeat(rng.normal(size=(8, 1, 5)).astype(np.float32), 10, axis=1)
    assert float(forecast_shared(constant).loss) == pytest.approx(np.log(10), rel=1e-4)


def test_cross_forecast_agrees_with_loops(rng):
    first, second = rng.normal(size=(2, 3, 6, 4)).astype(np.float32)
    errors = []
    for a, b in zip(unit(first), unit(second), strict=True):
        past, future = a[:-1].T, a[1:].T
        gram = past.T @ past + 0.1 * np.eye(5)
        operator = future @ np.linalg.inv(gram) @ past.T
        errors += [np.sum((operator @ x - y) ** 2) for x, y in zip(b[:-1], b[1:], strict=True)]
    got = jitted(cross_forecast)(first, second, ridge=0.1)
    assert float(got) == pytest.approx(np.mean(errors), rel=1e-3)


def test_the_literal_residual_is_least_squares_and_refused_where_it_is_void(rng):
    frames = rng.normal(size=(3, 9, 4)).astype(np.float32)
    total = 0.0
    for clip in frames:
        past, future = clip[:-1], clip[1:]
        fit = np.linalg.lstsq(past, future, rcond=None)[0]
        total += np.sum((past @ fit - future) ** 2)
    assert float(jax.jit(released_code_residual)(frames)) == pytest.approx(total**0.5, rel=1e-3)
    with pytest.raises(ValueError, match="got width 8 and 8 transitions. Use forecast='held_out'"):
        released_code_residual(jnp.zeros((2, 9, 8)))


def test_slopes_are_finite(rng):
    slope = jax.jit(jax.grad(lambda z: shared_forecast(z).loss))
    still = np.repeat(rng.normal(size=(4, 1, 5)), 8, axis=1)
    for frames in (rng.normal(size=(4, 8, 5)), still, np.zeros((4, 8, 5))):
        assert np.isfinite(slope(frames.astype(np.float32))).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="number of frames must be at least 5, got 4"):
        shared_forecast(jnp.ones((2, 4, 3)))
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        shared_forecast(jnp.ones((2, 4, 3)), ahead=0)
