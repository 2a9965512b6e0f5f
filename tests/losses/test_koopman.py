import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses import reference
from vrl_jax.losses import koopman

KINDS = ("random", "smooth", "constant", "deficient")


def relative_errors(frames, parts, **settings):
    errors = []
    for i, clip in enumerate(frames):
        static, dynamic, _ = reference.split(clip, **settings)
        gap = max(
            np.linalg.norm(static - parts.static[i]), np.linalg.norm(dynamic - parts.dynamic[i])
        )
        errors.append(gap / np.linalg.norm(clip.mean(0)))
    return errors


def test_split_agrees_with_a_float64_eigendecomposition(rng):
    errors = []
    value_and_slope = jax.jit(
        jax.value_and_grad(
            lambda z: (lambda p: (p[0].sum() + p[1].sum(), p))(koopman.split(z)), has_aux=True
        )
    )
    for t, d in itertools.product((4, 8, 16, 32), (8, 512)):
        frames = np.concatenate([reference.clips(kind, 6, t, d, rng) for kind in KINDS])
        (_, parts), slope = value_and_slope(jnp.array(frames))
        errors += relative_errors(frames, parts)
        assert np.isfinite(slope).all(), (t, d)
    assert np.median(errors) <= 1e-4
    assert max(errors) <= 1e-2


@pytest.mark.parametrize("pooling", koopman.POOLINGS)
@pytest.mark.parametrize("radius, order, ridge", [(0.1, 4, 1e-2), (0.3, 8, 3e-2), (0.2, 16, 1e-3)])
def test_every_setting_agrees(rng, radius, order, ridge, pooling):
    settings = {"radius": radius, "order": order, "ridge": ridge, "pooling": pooling}
    frames = reference.clips("smooth", 6, 9, 20, rng)
    errors = relative_errors(frames, koopman.split(jnp.array(frames), **settings), **settings)
    assert np.median(errors) < 1e-4 and max(errors) < 1e-2


def test_reduced_form_equals_the_full_operator(rng):
    frames = reference.clips("random", 1, 6, 12, rng)[0]
    settings = {"radius": 0.3, "order": 8, "ridge": 1e-2}
    ours = koopman.split(jnp.array(frames), **settings)
    for part, expected in zip(ours[:2], reference.full_split(frames, **settings), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-4)


@pytest.mark.parametrize("order", [4, 8, 16])
def test_filter_is_the_rational_function(rng, order):
    matrix = rng.normal(size=(5, 7, 7)) / np.sqrt(7) + 0.5 * np.eye(7)
    ours = koopman.disc_filter(jnp.array(matrix, jnp.float32), radius=0.5, order=order)
    for got, s in zip(ours, matrix, strict=True):
        power = np.linalg.matrix_power((s - np.eye(7)) / 0.5, order)
        np.testing.assert_allclose(got, np.linalg.inv(np.eye(7) + power), atol=2e-4)


def test_filter_values_along_the_axis():
    values = jnp.array([0.95, 0.9, 0.88, 0.8, 0.0])
    got = jnp.diag(koopman.disc_filter(jnp.diag(values), radius=0.1, order=8))
    np.testing.assert_allclose(got, [0.99611, 0.5, 0.18870, 0.0038911, 1e-8], atol=2e-5)


@pytest.mark.parametrize("pooling", koopman.POOLINGS)
def test_gradient_agrees_with_float64_differences(rng, pooling):
    frames = reference.clips("smooth", 1, 6, 5, rng)[0].astype(np.float64)
    settings = {"radius": 0.3, "ridge": 1e-2, "pooling": pooling}
    weights = rng.normal(size=(2, 5))

    def slope(z):
        parts = koopman.split(z, **settings)
        return parts.static @ jnp.array(weights[0]) + parts.dynamic @ jnp.array(weights[1])

    ours = np.asarray(jax.grad(slope)(jnp.array(frames, jnp.float32)))
    expected = np.zeros_like(frames)
    for index in np.ndindex(*frames.shape):
        sides = []
        for move in (1e-6, -1e-6):
            moved = frames.copy()
            moved[index] += move
            static, dynamic, _ = reference.split(moved, **settings)
            sides.append(static @ weights[0] + dynamic @ weights[1])
        expected[index] = (sides[0] - sides[1]) / 2e-6
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_clips_are_independent(rng):
    frames = jnp.array(reference.clips("random", 6, 8, 10, rng))
    order = rng.permutation(6)
    together, shuffled = koopman.split(frames), koopman.split(frames[order])
    np.testing.assert_allclose(together.static[order], shuffled.static, atol=1e-5)
    np.testing.assert_allclose(together.dynamic[2], koopman.split(frames[2]).dynamic, atol=1e-5)


def test_a_constant_clip_is_all_static(rng):
    frame = rng.normal(size=24).astype(np.float32)
    for t in (3, 8, 16):
        parts = koopman.split(jnp.tile(frame, (t, 1)))
        np.testing.assert_allclose(parts.static, frame, rtol=2e-3, atol=2e-3)
        assert np.abs(parts.dynamic).max() < 2e-3
        assert parts.static_rank == pytest.approx(1, abs=2e-3)
        assert parts.spectral_radius == pytest.approx(1, abs=2e-2)


def rotation(t, turn=1.1):
    """Return a constant along one axis and a rotation in the plane of two others."""
    angle = turn * np.arange(t)
    return np.stack([np.full(t, 0.8), np.cos(angle), np.sin(angle), 0 * angle], -1)


@pytest.mark.parametrize("t", [8, 16])
def test_a_rotation_is_dynamic_and_its_centre_static(t):
    frames = rotation(t)
    parts = koopman.split(jnp.array(frames, jnp.float32))
    np.testing.assert_allclose(parts.static, [0.8, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(parts.dynamic, frames.mean(0) - [0.8, 0, 0, 0], atol=0.25)
    assert abs(parts.dynamic[0]) < 0.02
    values = np.linalg.eigvals(np.asarray(koopman.fit(jnp.array(frames, jnp.float32)).matrix))
    expected = [1, np.exp(1.1j), np.exp(-1.1j)]
    assert all(np.abs(values - value).min() < 0.02 for value in expected)
    spread = koopman.split(jnp.array(frames, jnp.float32), pooling="rms").dynamic
    np.testing.assert_allclose(spread[1:3], np.sqrt((frames[:, 1:3] ** 2).mean(0)), atol=0.05)


def test_a_clip_without_a_static_mode_stays_finite():
    turn = 2.0 * np.arange(8)
    frames = jnp.array(np.stack([np.cos(turn), np.sin(turn)], -1), jnp.float32)
    parts = koopman.split(frames)
    assert parts.static_rank < 0.5 and parts.static_share < 0.2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(parts))
    assert np.isfinite(jax.grad(lambda z: koopman.split(z).static.sum())(frames)).all()


@pytest.mark.parametrize("t", (3, 5, 11))
def test_every_length_from_three_frames_on(rng, t):
    frames = reference.clips("smooth", 3, t, 6, rng)
    parts = koopman.split(jnp.array(frames), ridge=1e-2)
    assert max(relative_errors(frames, parts, ridge=1e-2)) < 1e-2


def test_a_stopped_filter_has_another_gradient_and_the_same_value(rng):
    frames = jnp.array(reference.clips("smooth", 2, 8, 6, rng))
    value = {s: koopman.split(frames, stop_filter=s).static for s in (False, True)}
    slope = {
        s: jax.grad(lambda z, s=s: koopman.split(z, stop_filter=s).static.sum())(frames)
        for s in (False, True)
    }
    np.testing.assert_array_equal(value[False], value[True])
    assert np.abs(slope[False] - slope[True]).max() > 1e-2 * np.abs(slope[True]).max()


def test_spectral_radius_is_the_largest_eigenvalue(rng):
    frames = reference.clips("random", 5, 10, 30, rng)
    parts = koopman.split(jnp.array(frames))
    for clip, radius in zip(frames, parts.spectral_radius, strict=True):
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
    ours = koopman.forecast_residual(jnp.array(frames), ridge=1e-2, held_out=3)
    assert float(ours) == pytest.approx(total, rel=1e-3)


def test_forecast_is_easy_for_linear_and_hard_for_random_clips(rng):
    noise = reference.clips("random", 4, 12, 16, rng)
    assert koopman.forecast_residual(jnp.array(rotation(12), jnp.float32)) < 0.01
    assert koopman.forecast_residual(jnp.array(noise)) > 0.5


def test_control_is_mean_and_spread(rng):
    frames = rng.normal(size=(3, 7, 5)).astype(np.float32)
    parts = koopman.mean_residual_split(jnp.array(frames))
    np.testing.assert_allclose(parts.static, frames.mean(1), rtol=1e-5)
    np.testing.assert_allclose(parts.dynamic, frames.std(1), rtol=1e-3)


def test_thousands_of_systems_in_a_jitted_loop_do_not_hang(rng):
    frames = jnp.array(reference.clips("random", 64, 16, 8, rng))
    step = jax.jit(lambda z: z - 1e-3 * jax.grad(lambda y: koopman.split(y).dynamic.sum())(z))
    for _ in range(30):
        frames = step(frames)
    assert np.isfinite(frames).all()


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
    parts = jax.jit(lambda z: koopman.split(z, radius=0.2, ridge=1e-2, filter="eig-hard"))(frames)
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
    parts = koopman.split(jnp.array(frames), radius=0.6, filter="eig-qr")
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
    operator = koopman.fit(jnp.array(frames), ridge=0.05, scope="video")
    forecast = operator.forecast(jnp.array(frames))
    for video, clips in enumerate(frames.astype(np.float64)):
        unit = clips / np.linalg.norm(clips, axis=-1, keepdims=True)
        past = np.concatenate([clip[:-1] for clip in unit]).T
        future = np.concatenate([clip[1:] for clip in unit]).T
        whole = future @ np.linalg.inv(past.T @ past + 0.05 * np.eye(12)) @ past.T
        np.testing.assert_allclose(forecast[video], clips @ whole.T, atol=1e-3)


def test_an_operator_of_a_batch_sees_all_transitions(rng):
    frames = rng.normal(size=(2, 3, 8, 4)).astype(np.float32)
    operator = koopman.fit(jnp.array(frames), ridge=0.05, scope="batch")
    unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    past, future = unit[..., :-1, :].reshape(-1, 4).T, unit[..., 1:, :].reshape(-1, 4).T
    whole = future @ past.T / 6 @ np.linalg.inv(past @ past.T / 6 + 0.05 * np.eye(4))
    np.testing.assert_allclose(operator.matrix, whole, atol=1e-4)
    np.testing.assert_allclose(operator.forecast(jnp.array(frames)), frames @ whole.T, atol=1e-4)
    parts = koopman.split(jnp.array(frames), radius=0.8, order=4, ridge=0.05, scope="batch")
    values, vectors = np.linalg.eig(whole)
    keep = vectors @ np.diag(1 / (1 + ((values - 1) / 0.8) ** 4)) @ np.linalg.inv(vectors)
    static = frames.mean(-2) @ (whole @ keep).real.T
    np.testing.assert_allclose(parts.static, static, atol=1e-3)
    assert parts.static_rank.shape == (2, 3)


def test_the_orthogonal_projector_cannot_magnify_and_keeps_what_is_constant(rng):
    frames = reference.clips("random", 8, 8, 16, rng)
    settings = {"radius": 0.3, "ridge": 1e-3}
    operator = koopman.fit(jnp.array(frames), ridge=1e-3)
    forecast = np.array(operator.forecast(jnp.array(frames))).mean(1)
    parts = koopman.split(jnp.array(frames), **settings, projector="orthogonal")
    size = np.linalg.norm(forecast, axis=-1)
    for part in parts[:2]:
        assert (np.linalg.norm(part, axis=-1) <= size * (1 + 1e-4)).all()
    np.testing.assert_allclose(parts.static + parts.dynamic, forecast, atol=1e-3)
    still = jnp.array(reference.clips("constant", 3, 8, 16, rng))
    parts = koopman.split(still, projector="orthogonal")
    np.testing.assert_allclose(parts.static, still[:, 0], rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    "settings",
    [{"filter": "eig-hard"}, {"filter": "eig-qr"}, {"scope": "video"}, {"scope": "batch"},
     {"projector": "orthogonal"}],
    ids=str,
)  # fmt: skip
def test_every_variant_is_differentiable(rng, settings):
    frames = jnp.array(rng.normal(size=(3, 2, 7, 5)), jnp.float32)

    def value(z):
        parts = koopman.split(z, radius=0.3, ridge=0.05, **settings)
        return jnp.sum(parts.static**2) + jnp.sum(parts.dynamic**2)

    slope = jax.jit(jax.grad(value))(frames)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_variants_that_do_not_go_together_are_refused(rng):
    frames = jnp.ones((2, 6, 4))
    with pytest.raises(ValueError, match="filter='eig-qr' is the released code"):
        koopman.split(frames, filter="eig-qr", scope="batch")
    with pytest.raises(ValueError, match="scope must be one of 'clip', 'video', 'batch'"):
        koopman.fit(frames, scope="frame")
