import colorsys
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.augment.test_crops import resize_by_loops
from vrl_jax.augment import views as A
from vrl_jax.augment.views import Augment, center_view, make_views
from vrl_jax.types import View

KEY = jax.random.key(3)
draw_views = jax.jit(make_views, static_argnums=(2, 3))
PLAIN = Augment(
    size=8,
    area=(1.0, 1.0),
    aspect=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    gray=0.0,
    blur=0.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def random_clip(rng, *shape):
    return rng.random((*shape, 3), dtype=np.float32)


def random_u8(rng, *shape):
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_flip_mirrors_about_as_often_as_asked(rng):
    clip = jnp.asarray(random_clip(rng, 2, 4, 5))
    keys = jax.random.split(KEY, 1000)
    got = jax.vmap(lambda key: A.random_flip(key, clip, 0.3))(keys)
    mirrored = np.asarray((got == clip[:, :, ::-1]).all(axis=(1, 2, 3, 4)))
    kept = np.asarray((got == clip).all(axis=(1, 2, 3, 4)))
    assert (mirrored ^ kept).all() and abs(mirrored.mean() - 0.3) < 0.05
    assert A.random_flip(KEY, clip, 0.0) is clip


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


@pytest.mark.parametrize("kind, place", [("black", 0), ("mean", 1), ("gray", 2)])
@pytest.mark.parametrize("shape", [(2, 5, 4), (3, 4, 7)])
def test_one_strength_alone_is_one_blend_with_a_factor_in_range(rng, kind, place, shape):
    clip = random_clip(rng, *shape)
    strengths = [0.0, 0.0, 0.0, 0.0]
    strengths[place] = 0.7
    gray = clip @ np.array([0.2989, 0.587, 0.114])
    slope = clip - {"black": 0, "mean": gray.mean(), "gray": gray[..., None]}[kind]
    keys = jax.random.split(KEY, 40)
    jitter = jax.vmap(lambda key: A.color_jitter(key, jnp.asarray(clip), 1.0, *strengths))
    factors = []
    for got in np.asarray(jitter(keys)):
        # The factor is read off where nothing was clipped; then every value must follow from it.
        inside = (got > 0.001) & (got < 0.999) & (abs(slope) > 0.02)
        factor = np.median(1 + (got - clip)[inside] / slope[inside])
        np.testing.assert_allclose(got, blend_by_loops(clip, factor, kind), atol=1e-4)
        factors.append(factor)
    assert 0.3 - 1e-3 < min(factors) < 0.4 and 1.6 < max(factors) < 1.7 + 1e-3


def test_strong_jitter_never_takes_a_negative_factor(rng):
    clip = jnp.asarray(random_clip(rng, 1, 3, 3))
    keys = jax.random.split(KEY, 200)
    jitter = jax.vmap(lambda key: A.color_jitter(key, clip, 1.0, 3.0, 0.0, 0.0, 0.0))
    assert float(jitter(keys).max(axis=(1, 2, 3, 4)).min()) > 0


@pytest.mark.parametrize("turns", [-0.5, -0.13, 0.0, 0.27, 0.5])
def test_hue_turns_as_in_hsv(rng, turns):
    clip = random_clip(rng, 2, 5, 6)
    clip[0, 0, 0] = 0.4  # gray, black and white have no hue
    clip[0, 0, 1], clip[0, 0, 2] = 0, 1
    clip[0, 0, 3], clip[0, 0, 4] = (0.7, 0.7, 0.1), (0.2, 0.9, 0.9)  # two greatest channels
    got = A.shift_hue(jnp.moveaxis(jnp.asarray(clip), -1, 0), jnp.float32(turns))
    np.testing.assert_allclose(np.moveaxis(got, 0, -1), hue_by_loops(clip, turns), atol=1e-5)


def test_jitter_applies_the_four_operations_in_every_order(rng):
    """Each of 24 orders is recognised by recomputing it with the very factors that were drawn."""
    clip = random_clip(rng, 1, 4, 4)
    strengths = (0.8, 0.8, 0.8, 0.3)
    seen = set()
    jitter = jax.jit(lambda key, clip: A.color_jitter(key, clip, 1.0, *strengths))
    for key in jax.random.split(KEY, 120):
        got = np.asarray(jitter(key, clip))
        _, factor_key, hue_key, _ = jax.random.split(key, 4)
        factors = np.asarray(jax.random.uniform(factor_key, (3,), minval=0.2, maxval=1.8))
        turns = float(jax.random.uniform(hue_key, minval=-0.3, maxval=0.3))
        matches = []
        for order in itertools.permutations(range(4)):
            wanted = clip
            for operation in order:
                if operation == 3:
                    wanted = hue_by_loops(wanted, turns)
                else:
                    kind = ("black", "mean", "gray")[operation]
                    wanted = blend_by_loops(wanted, factors[operation], kind)
            if abs(wanted - got).max() < 1e-4:
                matches.append(order)
        assert matches
        if len(matches) == 1:
            seen.update(matches)
    assert len(seen) > 18


@pytest.mark.parametrize(
    "strengths", [(0.5, 0.5, 0.5, 0.1), (0.0, 0.0, 0.0, 0.2), (0.5, 0.0, 0.3, 0.0)]
)
def test_jitter_happens_about_as_often_as_asked(rng, strengths):
    clip = jnp.asarray(random_clip(rng, 1, 4, 4))
    keys = jax.random.split(KEY, 600)
    got = jax.vmap(lambda key: A.color_jitter(key, clip, 0.8, *strengths))(keys)
    changed = np.asarray(abs(got - clip).max(axis=(1, 2, 3, 4)) > 1e-4)
    assert abs(changed.mean() - 0.8) < 0.06


def test_jitter_without_any_strength_changes_nothing(rng):
    clip = jnp.asarray(random_clip(rng, 1, 3, 3))
    np.testing.assert_array_equal(A.color_jitter(KEY, clip, 1.0, 0.0, 0.0, 0.0, 0.0), clip)


def test_grayscale_about_as_often_as_asked(rng):
    clip = random_clip(rng, 2, 3, 4)
    gray = np.empty_like(clip)
    for t, y, x in np.ndindex(clip.shape[:3]):
        r, g, b = clip[t, y, x]
        gray[t, y, x] = 0.2989 * r + 0.587 * g + 0.114 * b
    keys = jax.random.split(KEY, 1000)
    got = np.asarray(jax.vmap(lambda key: A.random_grayscale(key, jnp.asarray(clip), 0.2))(keys))
    drained = abs(got - gray).max(axis=(1, 2, 3, 4)) < 1e-6
    assert ((got == clip).all(axis=(1, 2, 3, 4)) ^ drained).all()
    assert abs(drained.mean() - 0.2) < 0.04


@pytest.mark.parametrize("shape", [(2, 6, 9), (1, 11, 5)])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_weighs_the_neighbours_that_exist(rng, shape, sigma):
    clip = random_clip(rng, *shape)
    wanted = np.zeros_like(clip)
    for t, y, x in np.ndindex(shape):
        total = 0.0
        for j, i in np.ndindex(shape[1:]):
            weight = np.exp(-((y - j) ** 2 + (x - i) ** 2) / (2 * sigma**2))
            wanted[t, y, x] += weight * clip[t, j, i]
            total += weight
        wanted[t, y, x] /= total
    blur = jax.jit(A.gaussian_blur, static_argnums=(2, 3))
    got = blur(KEY, jnp.asarray(clip), 1.0, (sigma, sigma))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_blur_about_as_often_as_asked_with_varied_strength(rng):
    clip = jnp.asarray(random_clip(rng, 1, 8, 8))
    keys = jax.random.split(KEY, 600)
    got = jax.vmap(lambda key: A.gaussian_blur(key, clip, 0.5, (0.5, 2.0)))(keys)
    change = np.asarray(abs(got - clip).mean(axis=(1, 2, 3, 4)))
    assert abs((change > 1e-3).mean() - 0.5) < 0.06
    assert change[change > 1e-3].max() > 1.4 * change[change > 1e-3].min()


def test_background_is_what_stands_still(rng):
    still, moving = random_clip(rng, 1, 6, 7), 0.2 * random_clip(rng, 5, 6, 7)
    clip = 0.5 * still + moving
    expected = 0.5 + moving - moving.mean(0)
    np.testing.assert_allclose(A.subtract_background(jnp.asarray(clip)), expected, atol=1e-6)
    u8 = random_u8(rng, 2, 5, 8, 8)
    mean = u8.astype(np.float64).mean(1, keepdims=True)
    expected = np.clip(0.5 + (u8 - mean) / 255, 0, 1)
    subtracting = replace(PLAIN, subtract_background=True)
    np.testing.assert_allclose(center_view(jnp.asarray(u8), subtracting), expected, atol=1e-5)
    views = draw_views(KEY, jnp.asarray(u8[:, None]), (View(0),), subtracting)
    np.testing.assert_allclose(views[:, 0], expected, atol=1e-5)


def test_a_still_view_keeps_what_moved_before_its_frame(rng):
    clips = jnp.asarray(random_u8(rng, 3, 1, 5, 8, 8))
    augment = replace(PLAIN, subtract_background=True)
    moving, still = np.moveaxis(
        draw_views(KEY, clips, (View(0), View(0, still=True)), augment), 1, 0
    )
    assert still.std((2, 3)).min() > 0.05
    for video, held in zip(moving, still, strict=True):
        np.testing.assert_array_equal(held, np.broadcast_to(held[:1], held.shape))
        assert min(np.abs(frame - held[0]).max() for frame in video) < 1e-6


def test_normalize_per_channel(rng):
    clip = random_clip(rng, 2, 3, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    got = A.normalize(jnp.asarray(clip), mean, std)
    for c in range(3):
        np.testing.assert_allclose(got[..., c], (clip[..., c] - mean[c]) / std[c], rtol=1e-5)


def test_views_without_augmentation_are_the_clips_they_name(rng):
    clips = random_u8(rng, 2, 3, 4, 8, 8)
    got = draw_views(KEY, jnp.asarray(clips), (View(2), View(0), View(2)), PLAIN)
    np.testing.assert_allclose(got, clips[:, [2, 0, 2]] / 255.0, atol=1e-6)


def test_one_draw_for_all_frames_and_another_for_every_video_and_view(rng):
    still = np.broadcast_to(random_u8(rng, 1, 1, 1, 12, 14), (2, 1, 5, 12, 14, 3))
    got = np.asarray(draw_views(KEY, jnp.asarray(still), (View(0), View(0)), Augment(size=8)))
    assert got.shape == (2, 2, 5, 8, 8, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, np.broadcast_to(got[:, :, :1], got.shape), atol=1e-5)
    flat = got.reshape(4, -1)
    for i in range(4):
        for j in range(i):
            assert abs(flat[i] - flat[j]).max() > 0.1


def test_a_key_decides_everything(rng):
    clips = jnp.asarray(random_u8(rng, 3, 2, 2, 12, 10))
    views, augment = (View(0), View(1)), Augment(size=8)
    first = np.asarray(draw_views(KEY, clips, views, augment))
    np.testing.assert_array_equal(first, draw_views(KEY, clips, views, augment))
    assert abs(first - draw_views(jax.random.key(4), clips, views, augment)).max() > 0.1


def test_the_same_without_jit(rng):
    """The operations left out here are tested without jit above."""
    clips = jnp.asarray(random_u8(rng, 2, 1, 2, 12, 10))
    augment = replace(PLAIN, area=(0.3, 0.8), flip=0.5, gray=0.5)
    views = (View(0), View(0))
    without = make_views(KEY, clips, views, augment)
    np.testing.assert_allclose(draw_views(KEY, clips, views, augment), without, atol=1e-5)


def test_eight_devices_draw_what_one_device_draws(rng):
    clips = jnp.asarray(random_u8(rng, 8, 1, 2, 12, 10))
    views, augment = (View(0), View(0)), Augment(size=8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    spread = jax.device_put(clips, NamedSharding(mesh, PartitionSpec("data")))
    one, many = (draw_views(KEY, c, views, augment) for c in (clips, spread))
    assert len(many.sharding.device_set) == 8
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_a_video_keeps_its_draw_whatever_stands_beside_it(rng):
    clips = random_u8(rng, 3, 2, 2, 12, 10)
    other = clips.copy()
    other[1:] = random_u8(rng, 2, 2, 2, 12, 10)
    views, augment = (View(0), View(1)), Augment(size=8)
    first, second = (draw_views(KEY, jnp.asarray(c), views, augment) for c in (clips, other))
    np.testing.assert_array_equal(first[0], second[0])
    assert abs(np.asarray(first[1] - second[1])).max() > 0.1


@pytest.mark.parametrize("clip", [-1, 2])
def test_a_view_of_a_clip_that_was_not_decoded_is_refused(rng, clip):
    with pytest.raises(ValueError, match="2 clip"):
        draw_views(KEY, jnp.asarray(random_u8(rng, 1, 2, 2, 8, 8)), (View(clip),), PLAIN)


@pytest.mark.parametrize("height, width", [(10, 15), (16, 11)])
def test_center_view_is_the_central_square_resized_and_normalised(rng, height, width):
    clips = random_u8(rng, 2, 3, height, width)
    side = min(height, width)
    corner = ((height - side) / 2, (width - side) / 2)
    augment = Augment(size=6)
    got = jax.jit(center_view, static_argnums=1)(jnp.asarray(clips), augment)
    assert got.shape == (2, 3, 6, 6, 3)
    for n in range(2):
        wanted = resize_by_loops(clips[n] / 255.0, corner, (side, side), 6)
        np.testing.assert_allclose(got[n], (wanted - 0.45) / 0.225, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"area": (0.5, 1.2)},
        {"area": (0.0, 0.5)},
        {"aspect": (1.5, 0.7)},
        {"sigma": (0.0, 1.0)},
        {"flip": 1.5},
        {"hue": 0.6},
        {"brightness": -0.1},
        {"std": (0.2, 0.0, 0.2)},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PLAIN, **wrong)


def test_plain_crops_want_frames_that_are_large_enough(rng):
    clips = jnp.array(random_u8(rng, 1, 1, 2, 6, 9))
    with pytest.raises(
        ValueError, match="augment.size=8 wants frames at least that large, got 6 x"
    ):
        make_views(KEY, clips, (View(0),), replace(PLAIN, crop="plain"))


def test_gray_by_channel_keeps_one_colour_for_the_whole_clip(rng):
    clip = jnp.array(random_clip(rng, 3, 4, 5))
    kept = set()
    for seed in range(30):
        got = A.random_grayscale(jax.random.key(seed), clip, 1.0, "channel")
        same = [c for c in range(3) if np.array_equal(got, jnp.repeat(clip[..., c : c + 1], 3, -1))]
        assert len(same) == 1
        kept |= set(same)
    assert kept == {0, 1, 2}


def test_all_views_of_a_video_are_reversed_together(rng):
    clips = jnp.array(random_u8(rng, 64, 2, 5, 8, 8))
    views = (View(0), View(1))
    plain = np.array(draw_views(KEY, clips, views, PLAIN))
    drawn = np.array(draw_views(KEY, clips, views, replace(PLAIN, reverse=0.5)))
    backwards = [np.array_equal(d, p[:, ::-1]) for d, p in zip(drawn, plain, strict=True)]
    forwards = [np.array_equal(d, p) for d, p in zip(drawn, plain, strict=True)]
    assert all(b != f for b, f in zip(backwards, forwards, strict=True))
    assert 16 < sum(backwards) < 48
    always = draw_views(KEY, clips, views, replace(PLAIN, reverse=1.0))
    np.testing.assert_array_equal(always, plain[:, :, ::-1])


def test_weak_views_keep_their_colours_and_others_do_not(rng):
    clips = jnp.array(random_u8(rng, 64, 1, 2, 8, 8))
    strong = replace(PLAIN, jitter=1.0, gray=0.0, blur=1.0, sigma=(2.0, 2.0))
    views = (View(0, weak=0.25), View(0))
    drawn = np.array(draw_views(KEY, clips, views, strong))
    plain = np.array(draw_views(KEY, clips, (View(0),), PLAIN))[:, 0]
    weak = np.array([np.allclose(d, p, atol=1e-6) for d, p in zip(drawn[:, 0], plain, strict=True)])
    assert 6 < weak.sum() < 28
    assert not any(np.allclose(d, p, atol=1e-2) for d, p in zip(drawn[:, 1], plain, strict=True))
