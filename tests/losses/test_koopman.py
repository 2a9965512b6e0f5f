import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jitted import jitted
from tests.losses import reference
from vrl_jax.losses import koopman

KINDS = ("random", "smooth", "constant", "deficient")

split = jitted(koopman.split)
disc_filter = jitted(koopman.disc_filter)
forecast_residual = jitted(koopman.forecast_residual)
control = jitted(koopman.mean_residual_split)
fit = jitted(koopman.fit)


@functools.partial(jax.jit, static_argnames=("settings",))
def slope_along(frames, weights, settings=()):
    """Return the gradient of the parts' products with fixed vectors."""

    def product(z):
        parts = koopman.split(z, **dict(settings))
        return jnp.sum(parts.static * weights[0]) + jnp.sum(parts.dynamic * weights[1])

    return jax.grad(product)(frames)


def split_and_slope(frames, **settings):
    """Return the parts and the gradient of their squares' sum, checked to be of use."""

    def squares(z):
        parts = koopman.split(z, **settings)
        return jnp.sum(parts.static**2) + jnp.sum(parts.dynamic**2), parts

    (_, parts), slope = jax.jit(jax.value_and_grad(squares, has_aux=True))(frames)
    assert np.isfinite(slope).all() and np.any(slope)
    return jax.device_get(parts)


def relative_errors(frames, parts, **settings):
    errors = []
    for i, clip in enumerate(frames):
        static, dynamic, _ = reference.split(clip, **settings)
        gap = max(
            np.linalg.norm(static - parts.static[i]), np.linalg.norm(dynamic - parts.dynamic[i])
        )
        errors.append(gap / np.linalg.norm(clip.mean(0)))
    return errors


def test_split_agrees_with_a_float64_eigendecomposition_at_every_length(rng):
    errors = []
    for t, d in ((3, 8), (8, 512), (11, 8), (32, 512)):
        frames = np.concatenate([reference.clips(kind, 6, t, d, rng) for kind in KINDS])
        errors += relative_errors(frames, split_and_slope(frames))
    assert np.median(errors) <= 1e-4
    assert max(errors) <= 1e-2


SETTINGS = [
    {"radius": 0.1, "order": 4, "ridge": 1e-2, "pooling": "mean"},
    {"radius": 0.3, "order": 8, "ridge": 3e-2, "pooling": "rms"},
    {"radius": 0.2, "order": 16, "ridge": 1e-3, "pooling": "mean"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_agrees(rng, settings):
    frames = reference.clips("smooth", 6, 9, 20, rng)
    errors = relative_errors(frames, split(frames, **settings), **settings)
    assert np.median(errors) < 1e-4 and max(errors) < 1e-2


def test_reduced_form_equals_the_full_operator(rng):
    frames = reference.clips("random", 6, 9, 20, rng)
    static, dynamic = jax.device_get(split(frames, **SETTINGS[0])[:2])
    for i, clip in enumerate(frames):
        expected = reference.full_split(clip, radius=0.1, order=4, ridge=1e-2)
        np.testing.assert_allclose([static[i], dynamic[i]], expected, atol=1e-4)


@pytest.mark.parametrize("order", [4, 16])
def test_filter_is_the_rational_function(rng, order):
    matrix = rng.normal(size=(5, 7, 7)) / np.sqrt(7) + 0.5 * np.eye(7)
    ours = disc_filter(matrix.astype(np.float32), radius=0.5, order=order)
    for got, s in zip(ours, matrix, strict=True):
        power = np.linalg.matrix_power((s - np.eye(7)) / 0.5, order)
        np.testing.assert_allclose(got, np.linalg.inv(np.eye(7) + power), atol=2e-4)


def test_filter_values_along_the_axis():
    values = np.diag(np.array([0.95, 0.9, 0.88, 0.8, 0.0], np.float32))
    got = np.diag(disc_filter(values, radius=0.1, order=8))
    np.testing.assert_allclose(got, [0.99611, 0.5, 0.18870, 0.0038911, 1e-8], atol=2e-5)


def settled(pooling):
    """Return the settings of the gradients' tests, as a static argument."""
    return (("radius", 0.3), ("ridge", 1e-2), ("pooling", pooling))


@pytest.mark.parametrize("pooling", koopman.POOLINGS)
def test_gradient_agrees_with_float64_differences(rng, pooling):
    frames = reference.clips("smooth", 1, 8, 4, rng)[0]
    weights = rng.normal(size=(2, 4)).astype(np.float32)
    expected = np.zeros_like(frames)
    for index in np.ndindex(*frames.shape):
        sides = []
        for move in (1e-6, -1e-6):
            moved = frames.astype(np.float64)
            moved[index] += move
            static, dynamic, _ = reference.split(moved, **dict(settled(pooling)))
            sides.append(static @ weights[0] + dynamic @ weights[1])
        expected[index] = (sides[0] - sides[1]) / 2e-6
    ours = slope_along(frames, weights, settled(pooling))
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_clips_are_independent(rng):
    frames = reference.clips("random", 6, 8, 10, rng)
    order = rng.permutation(6)
    together, shuffled = jax.device_get((split(frames), split(frames[order])))
    np.testing.assert_allclose(together.static[order], shuffled.static, atol=1e-5)
    others = reference.clips("random", 6, 8, 10, rng)
    others[2] = frames[2]
    np.testing.assert_allclose(together.dynamic[2], split(others).dynamic[2], atol=1e-5)


def test_a_constant_clip_is_all_static(rng):
    frame = rng.normal(size=4).astype(np.float32)
    parts = jax.device_get(split(np.tile(frame, (8, 1))))
    np.testing.assert_allclose(parts.static, frame, rtol=2e-3, atol=2e-3)
    assert np.abs(parts.dynamic).max() < 2e-3
    assert parts.static_rank == pytest.approx(1, abs=2e-3)
    assert parts.spectral_radius == pytest.approx(1, abs=2e-2)


def rotation(t, turn=1.1, centre=0.8):
    """Return a constant along one axis and a rotation in the plane of two others."""
    angle = turn * np.arange(t)
    return np.stack(
        [np.full(t, centre), np.cos(angle), np.sin(angle), 0 * angle], -1, dtype=np.float32
    )


def test_a_rotation_is_dynamic_and_its_centre_static():
    frames = rotation(8)
    parts = jax.device_get(split(frames))
    np.testing.assert_allclose(parts.static, [0.8, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(parts.dynamic, frames.mean(0) - [0.8, 0, 0, 0], atol=0.25)
    assert abs(parts.dynamic[0]) < 0.02
    values = np.linalg.eigvals(jax.jit(lambda z: koopman.fit(z).matrix)(frames))
    expected = [1, np.exp(1.1j), np.exp(-1.1j)]
    assert all(np.abs(values - value).min() < 0.02 for value in expected)
    spread = np.asarray(split(frames, pooling="rms").dynamic)
    np.testing.assert_allclose(spread[1:3], np.sqrt((frames[:, 1:3] ** 2).mean(0)), atol=0.05)


def test_a_clip_without_a_static_mode_stays_finite():
    frames = rotation(8, turn=2.0, centre=0)
    parts = jax.device_get(split(frames))
    assert parts.static_rank < 0.5 and parts.static_share < 0.2
    assert all(np.isfinite(x).all() for x in parts)
    weights = np.float32([4 * [1], 4 * [0]])
    assert np.isfinite(slope_along(frames, weights, settled("mean"))).all()


def test_a_stopped_filter_has_another_gradient_and_the_same_value(rng):
    frames = reference.clips("smooth", 1, 8, 4, rng)[0]
    weights = np.float32([4 * [1], 4 * [0]])
    free = slope_along(frames, weights, settled("mean"))
    stopped = slope_along(frames, weights, (*settled("mean"), ("stop_filter", True)))
    assert np.abs(free - stopped).max() > 1e-2 * np.abs(stopped).max()
    np.testing.assert_array_equal(split(frames).static, split(frames, stop_filter=True).static)


def test_spectral_radius_is_the_largest_eigenvalue(rng):
    frames = reference.clips("random", 6, 8, 10, rng)
    for clip, radius in zip(frames, np.asarray(split(frames).spectral_radius), strict=True):
        values = np.linalg.eigvals(reference.operator(clip.astype(np.float64), 1e-3)[0])
        assert radius == pytest.approx(np.abs(values).max(), rel=0.1)


def test_forecast_residual_agrees_with_loops(rng):
    frames = reference.clips("smooth", 4, 9, 6, rng)
    total = 0.0
    for clip in frames.astype(np.float64):
        unit = clip / np.linalg.norm(clip, axis=-1, keepdims=True)
        _, _, future, to_coordinates = reference.operator(unit[:-3], 1e-2)
        error = size = 0.0
        for h in range(len(unit) - 4, len(unit) - 1):
            error += np.sum((future @ to_coordinates @ unit[h] - unit[h + 1]) ** 2)
            size += np.sum(unit[h + 1] ** 2)
        total += error / size / len(frames)
    ours = forecast_residual(frames, ridge=1e-2, held_out=3)
    assert float(ours) == pytest.approx(total, rel=1e-3)


def test_forecast_is_easy_for_linear_and_hard_for_random_clips(rng):
    turning = np.stack(4 * [rotation(12)])
    assert float(forecast_residual(turning)) < 0.01
    assert float(forecast_residual(reference.clips("random", 4, 12, 4, rng))) > 0.5


def test_control_is_mean_and_spread(rng):
    frames = rng.normal(size=(3, 7, 5)).astype(np.float32)
    parts = control(frames)
    np.testing.assert_allclose(parts.static, frames.mean(1), rtol=1e-5)
    np.testing.assert_allclose(parts.dynamic, frames.std(1), rtol=1e-3)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_trend_is_left_out_of_the_control_and_what_is_left_agrees_with_loops(rng, degree):
    frames = rng.normal(size=(3, 9, 5)).astype(np.float32)
    parts = control(frames, degree=degree)
    np.testing.assert_allclose(parts.static, frames.mean(1), rtol=1e-5)
    for clip, dynamic in zip(frames, parts.dynamic, strict=True):
        steps = np.arange(9)
        trends = [np.polyval(np.polyfit(steps, channel, degree), steps) for channel in clip.T]
        residual = clip - np.stack(trends, 1)
        np.testing.assert_allclose(dynamic, np.sqrt(np.mean(residual**2, 0)), rtol=1e-4)
    trend = np.linspace(0, 3, 9)[:, None] ** degree * rng.normal(size=5) + 7
    left = control(np.stack(3 * [trend]).astype(np.float32), degree=degree).dynamic
    assert np.abs(left).max() < 1e-4


def test_the_control_of_unit_frames_does_not_see_their_gain(rng):
    frames = (rng.normal(size=(9, 5)) + 2).astype(np.float32)
    gain = rng.uniform(0.5, 2, (9, 1)).astype(np.float32)
    one, other = (control(z, unit=True) for z in (frames, gain * frames))
    np.testing.assert_allclose(one.dynamic, other.dynamic, rtol=1e-4)
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    np.testing.assert_allclose(one.static, unit.mean(0), rtol=1e-4)
    assert not np.allclose(unit.std(0), frames.std(0), rtol=0.1)


def swinging(rate, steps=16, width=64):
    """Return unit frames of appearance and one direction of motion, and their noise."""
    rng = np.random.default_rng(0)
    appearance, direction = np.linalg.qr(rng.normal(size=(width, 2)))[0].T
    weight = 0.3 * np.cos(rate * np.arange(steps) + 0.7)
    noise = 0.0002 * rng.normal(size=(4, steps, width))
    frames = appearance + weight[:, None] * direction + noise
    return frames.astype(np.float32), direction, np.sqrt(np.mean(weight**2))


@pytest.mark.parametrize("rate", [0.45, 0.6])
def test_a_standing_oscillation_is_dynamic_only_with_a_delay(rate):
    frames, direction, size = swinging(rate)
    assert rate < koopman.slowest_standing_rate(0.3) < 0.8
    for delay, low, high in ((1, 0.0, 0.1), (2, 0.9, 1.1), (3, 0.9, 1.1)):
        parts = split(frames, radius=0.3, pooling="rms", delay=delay)
        share = np.abs(parts.dynamic @ np.abs(direction)) / size
        assert (low <= share).all() and (share <= high).all(), (delay, share)
        assert parts.static.shape == parts.dynamic.shape == (4, 64)


def test_the_eigenvalues_of_a_delay_are_those_of_the_oscillation():
    frames, _, _ = swinging(0.6)
    for delay, expected in ((1, [np.cos(0.6)]), (2, np.exp([0.6j, -0.6j]))):
        matrix = fit(frames, delay=delay, ridge=1e-3).matrix
        values = np.linalg.eigvals(np.asarray(matrix, np.float64))
        for value in expected:
            assert np.abs(values - value).min(-1).max() < 0.05, (delay, value)


def test_a_forecast_with_a_delay_continues_a_standing_oscillation():
    frames, _, _ = swinging(0.6)
    without, with_delay = (float(forecast_residual(frames, delay=delay)) for delay in (1, 2))
    assert with_delay < 0.2 * without


def test_states_are_consecutive_frames_and_too_few_are_refused():
    with pytest.raises(ValueError, match="number of frames must be at least 3, got 2"):
        koopman.fit(jnp.ones((3, 4)), delay=2)
    with pytest.raises(ValueError, match="delay must be at least 1"):
        koopman.split(jnp.ones((5, 4)), delay=0)
    with pytest.raises(ValueError, match="number of frames must be at least 6, got 5"):
        koopman.forecast_residual(jnp.ones((5, 4)), delay=2)


def test_a_step_calls_no_lapack_which_can_hang(rng):
    step = jax.jit(jax.grad(lambda z: koopman.split(z).dynamic.sum()))
    frames = jax.ShapeDtypeStruct((64, 16, 8), jnp.float32)
    assert "custom_call" not in step.lower(frames).as_text()
    calls = jax.jit(jnp.linalg.solve).lower(np.eye(2, dtype="f"), np.ones((2, 1), "f")).as_text()
    assert "custom_call" in calls


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"order": 6}, "multiple of 4, got 6"),
        ({"radius": 0.0}, "radius must be above 0"),
        ({"ridge": -1.0}, "ridge must be above 0"),
        ({"pooling": "max"}, "pooling must be one of 'mean', 'rms', got 'max'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        koopman.split(jnp.ones((5, 4)), **settings)


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="number of frames must be at least 3, got 2"):
        koopman.split(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="number of frames must be at least 5, got 4"):
        koopman.forecast_residual(jnp.ones((4, 4)))


def test_the_hard_filter_agrees_with_the_eigenvectors_within_the_radius(rng):
    frames = reference.clips("smooth", 5, 8, 12, rng)
    parts = split_and_slope(frames, radius=0.2, ridge=1e-2, filter="eig-hard")
    for i, clip in enumerate(frames.astype(np.float64)):
        matrix, _, future, to_coordinates = reference.operator(clip, 1e-2)
        values, vectors = np.linalg.eig(matrix)
        keep = (vectors @ np.diag(np.abs(values - 1) <= 0.2) @ np.linalg.inv(vectors)).real
        whole = to_coordinates @ clip.mean(0)
        static = future @ keep @ whole
        scale = np.linalg.norm(clip.mean(0))
        np.testing.assert_allclose(parts.static[i], static, atol=1e-3 * scale)
        np.testing.assert_allclose(parts.dynamic[i], future @ whole - static, atol=1e-3 * scale)
        assert float(parts.static_rank[i]) == pytest.approx(
            np.sum(np.abs(values - 1) <= 0.2), abs=1e-3
        )


def test_the_published_computation_by_loops(rng):
    frames = reference.clips("random", 3, 6, 5, rng)
    parts = split_and_slope(frames, radius=0.6, filter="eig-qr")
    for i, clip in enumerate(frames.astype(np.float64)):
        unit = clip / np.linalg.norm(clip, axis=1, keepdims=True)
        operator = unit[1:].T @ np.linalg.pinv(unit[:-1].T, 1e-4)
        values, vectors = np.linalg.eig(operator)
        unitary, _ = np.linalg.qr(vectors)
        masked = [
            (unitary @ np.diag(values * mask) @ np.linalg.inv(unitary)).real
            for mask in (np.abs(values - 1) <= 0.6, np.abs(values - 1) > 0.6)
        ]
        static, dynamic = (np.mean([m @ frame for frame in clip], axis=0) for m in masked)
        np.testing.assert_allclose(parts.static[i], static, atol=1e-3)
        np.testing.assert_allclose(parts.dynamic[i], dynamic, atol=1e-3)


def test_an_operator_of_a_video_sees_all_its_transitions(rng):
    frames = rng.normal(size=(2, 3, 5, 9)).astype(np.float32)
    forecast = jax.jit(lambda z: koopman.fit(z, ridge=0.05, scope="video").forecast(z))(frames)
    forecast = np.asarray(forecast)
    parts = split_and_slope(frames, order=4, ridge=0.05, scope="video")
    np.testing.assert_allclose(parts.static + parts.dynamic, forecast.mean(-2), atol=1e-3)
    for video, clips in enumerate(frames.astype(np.float64)):
        unit = clips / np.linalg.norm(clips, axis=-1, keepdims=True)
        past = np.concatenate([clip[:-1] for clip in unit]).T
        future = np.concatenate([clip[1:] for clip in unit]).T
        whole = future @ np.linalg.inv(past.T @ past + 0.05 * np.eye(12)) @ past.T
        np.testing.assert_allclose(forecast[video], clips @ whole.T, atol=1e-3)


def test_an_operator_of_a_batch_sees_all_transitions(rng):
    frames = rng.normal(size=(2, 3, 8, 4)).astype(np.float32)
    operator = functools.partial(koopman.fit, ridge=0.05, scope="batch")
    matrix, forecast = jax.jit(lambda z: (operator(z).matrix, operator(z).forecast(z)))(frames)
    unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    past, future = unit[..., :-1, :].reshape(-1, 4).T, unit[..., 1:, :].reshape(-1, 4).T
    whole = future @ past.T / 6 @ np.linalg.inv(past @ past.T / 6 + 0.05 * np.eye(4))
    np.testing.assert_allclose(matrix, whole, atol=1e-4)
    np.testing.assert_allclose(forecast, frames @ whole.T, atol=1e-4)
    parts = split_and_slope(frames, radius=0.8, order=4, ridge=0.05, scope="batch")
    values, vectors = np.linalg.eig(whole)
    keep = vectors @ np.diag(1 / (1 + ((values - 1) / 0.8) ** 4)) @ np.linalg.inv(vectors)
    static = frames.mean(-2) @ (whole @ keep).real.T
    np.testing.assert_allclose(parts.static, static, atol=1e-3)
    assert parts.static_rank.shape == (2, 3)


def test_the_orthogonal_projector_cannot_magnify_and_keeps_what_is_constant(rng):
    frames = reference.clips("random", 8, 8, 16, rng)
    settings = {"radius": 0.3, "order": 4, "projector": "orthogonal"}
    forecast = np.asarray(jax.jit(lambda z: koopman.fit(z).forecast(z))(frames)).mean(1)
    parts = split_and_slope(frames, **settings)
    size = np.linalg.norm(forecast, axis=-1)
    for part in parts[:2]:
        assert (np.linalg.norm(part, axis=-1) <= size * (1 + 1e-4)).all()
    np.testing.assert_allclose(parts.static + parts.dynamic, forecast, atol=1e-3)
    still = reference.clips("constant", 8, 8, 16, rng)
    parts = split_and_slope(still, **settings)
    np.testing.assert_allclose(parts.static, still[:, 0], rtol=0.03, atol=0.03)


def test_variants_that_do_not_go_together_are_refused(rng):
    frames = jnp.ones((2, 6, 4))
    with pytest.raises(ValueError, match="filter='eig-qr' is the released code"):
        koopman.split(frames, filter="eig-qr", scope="batch")
    with pytest.raises(ValueError, match="scope must be one of 'clip', 'video', 'batch'"):
        koopman.fit(frames, scope="frame")
