import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.augment import photometric as P

KEY = jax.random.wrap_key_data(np.array([0, 3], np.uint32))  # compiles nothing


def drawn(function, count):
    """Return what a function draws with each of `count` keys, of one compiled program."""
    return jax.device_get(jax.jit(lambda: jax.vmap(function)(jax.random.split(KEY, count)))())


def random_clip(rng, *shape):
    return rng.random((*shape, 3), dtype=np.float32)


def blend_by_loops(clip, factor, kind):
    gray = clip @ np.array([0.2989, 0.587, 0.114])
    out = np.empty_like(clip)
    for index in np.ndindex(clip.shape):
        reference = {"black": 0, "mean": gray.mean(), "gray": gray[index[:3]]}[kind]
        out[index] = min(max(factor * clip[index] + (1 - factor) * reference, 0), 1)
    return out


def hue_by_loops(clip, turns):
    out = np.empty_like(clip)
    for index in np.ndindex(clip.shape[:3]):
        h, s, v = colorsys.rgb_to_hsv(*clip[index])
        out[index] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
    return out


@pytest.mark.parametrize("kind, index", [("black", 0), ("mean", 1), ("gray", 2)])
def test_one_strength_alone_is_one_blend_with_a_factor_in_range(rng, kind, index):
    clip = random_clip(rng, 2, 5, 4)
    strengths = [0.0, 0.0, 0.0, 0.0]
    strengths[index] = 0.7
    gray = clip @ np.array([0.2989, 0.587, 0.114])
    slope = clip - {"black": 0, "mean": gray.mean(), "gray": gray[..., None]}[kind]
    jitter = lambda key: P.color_jitter(key, jnp.asarray(clip), 1.0, *strengths)  # noqa: E731
    factors = []
    for got in drawn(jitter, 40):
        # The factor is read off where nothing was clipped; then every value must follow from it.
        inside = (got > 0.001) & (got < 0.999) & (abs(slope) > 0.02)
        factor = np.median(1 + (got - clip)[inside] / slope[inside])
        np.testing.assert_allclose(got, blend_by_loops(clip, factor, kind), atol=1e-4)
        factors.append(factor)
    assert 0.3 - 1e-3 < min(factors) < 0.4 and 1.6 < max(factors) < 1.7 + 1e-3


def test_strong_jitter_never_takes_a_negative_factor(rng):
    clip = jnp.asarray(random_clip(rng, 1, 3, 3))
    got = drawn(lambda key: P.color_jitter(key, clip, 1.0, 3.0, 0.0, 0.0, 0.0), 200)
    assert got.max(axis=(1, 2, 3, 4)).min() > 0


@pytest.mark.parametrize("turns", [-0.5, -0.13, 0.0, 0.27, 0.5])
def test_hue_turns_as_in_hsv(rng, turns):
    clip = random_clip(rng, 2, 5, 6)
    clip[0, 0, 0] = 0.4  # gray, black and white have no hue
    clip[0, 0, 1], clip[0, 0, 2] = 0, 1
    clip[0, 0, 3], clip[0, 0, 4] = (0.7, 0.7, 0.1), (0.2, 0.9, 0.9)  # two greatest channels
    got = jax.jit(P.shift_hue)(np.moveaxis(clip, -1, 0), np.float32(turns))
    np.testing.assert_allclose(np.moveaxis(got, 0, -1), hue_by_loops(clip, turns), atol=1e-5)


def test_jitter_applies_the_four_operations_in_every_order(rng):
    """Each of 24 orders is recognised by recomputing it with the very factors that were drawn."""
    clip = random_clip(rng, 1, 2, 2)
    strengths = (0.8, 0.8, 0.8, 0.3)
    orders = set()

    def draw(key):
        _, factor_key, hue_key, _ = jax.random.split(key, 4)
        factors = jax.random.uniform(factor_key, (3,), minval=0.2, maxval=1.8)
        turns = jax.random.uniform(hue_key, minval=-0.3, maxval=0.3)
        return P.color_jitter(key, jnp.asarray(clip), 1.0, *strengths), factors, turns

    for got, factors, turns in zip(*drawn(draw, 120), strict=True):
        matches = []
        for order in itertools.permutations(range(4)):
            expected = clip
            for operation in order:
                if operation == 3:
                    expected = hue_by_loops(expected, turns)
                else:
                    kind = ("black", "mean", "gray")[operation]
                    expected = blend_by_loops(expected, factors[operation], kind)
            if abs(expected - got).max() < 1e-4:
                matches.append(order)
        assert matches
        if len(matches) == 1:
            orders.update(matches)
    assert len(orders) > 18


@pytest.mark.parametrize("strengths", [(0.5, 0.5, 0.5, 0.1), (0.0, 0.0, 0.0, 0.2)])
def test_jitter_happens_about_as_often_as_asked(rng, strengths):
    clip = jnp.asarray(random_clip(rng, 1, 4, 4))
    got = drawn(lambda key: P.color_jitter(key, clip, 0.8, *strengths), 600)
    changed = abs(got - np.asarray(clip)).max(axis=(1, 2, 3, 4)) > 1e-4
    assert abs(changed.mean() - 0.8) < 0.06


def test_jitter_without_any_strength_changes_nothing(rng):
    clip = jnp.asarray(random_clip(rng, 1, 3, 3))
    np.testing.assert_array_equal(P.color_jitter(KEY, clip, 1.0, 0.0, 0.0, 0.0, 0.0), clip)


def test_grayscale_about_as_often_as_asked(rng):
    clip = random_clip(rng, 2, 3, 4)
    gray = np.empty_like(clip)
    for t, y, x in np.ndindex(clip.shape[:3]):
        r, g, b = clip[t, y, x]
        gray[t, y, x] = 0.2989 * r + 0.587 * g + 0.114 * b
    got = drawn(lambda key: P.random_grayscale(key, jnp.asarray(clip), 0.2), 1000)
    drained = abs(got - gray).max(axis=(1, 2, 3, 4)) < 1e-6
    assert ((got == clip).all(axis=(1, 2, 3, 4)) ^ drained).all()
    assert abs(drained.mean() - 0.2) < 0.04


@pytest.mark.parametrize("shape, sigma", [((2, 6, 9), 0.1), ((2, 6, 9), 2.0), ((1, 11, 5), 0.8)])
def test_blur_weighs_the_neighbours_that_exist(rng, shape, sigma):
    clip = random_clip(rng, *shape)
    expected = np.zeros_like(clip)
    for t, y, x in np.ndindex(shape):
        total = 0.0
        for j, i in np.ndindex(shape[1:]):
            weight = np.exp(-((y - j) ** 2 + (x - i) ** 2) / (2 * sigma**2))
            expected[t, y, x] += weight * clip[t, j, i]
            total += weight
        expected[t, y, x] /= total
    blur = jax.jit(P.gaussian_blur, static_argnums=(2, 3))
    got = blur(KEY, jnp.asarray(clip), 1.0, (sigma, sigma))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_blur_about_as_often_as_asked_with_varied_strength(rng):
    clip = jnp.asarray(random_clip(rng, 1, 8, 8))
    got = drawn(lambda key: P.gaussian_blur(key, clip, 0.5, (0.5, 2.0)), 600)
    change = abs(got - np.asarray(clip)).mean(axis=(1, 2, 3, 4))
    assert abs((change > 1e-3).mean() - 0.5) < 0.06
    assert change[change > 1e-3].max() > 1.4 * change[change > 1e-3].min()


def test_normalize_per_channel(rng):
    clip = random_clip(rng, 2, 3, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    got = np.asarray(jax.jit(lambda clip: P.normalize(clip, mean, std))(clip))
    for c in range(3):
        np.testing.assert_allclose(got[..., c], (clip[..., c] - mean[c]) / std[c], rtol=1e-5)


def test_gray_by_channel_keeps_one_colour_for_the_whole_clip(rng):
    clip = random_clip(rng, 3, 4, 5)
    channels = set()
    for got in drawn(lambda key: P.random_grayscale(key, jnp.array(clip), 1.0, "channel"), 30):
        same = [c for c in range(3) if np.array_equal(got, np.repeat(clip[..., c : c + 1], 3, -1))]
        assert len(same) == 1
        channels |= set(same)
    assert channels == {0, 1, 2}
