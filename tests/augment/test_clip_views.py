from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.augment.test_spatial_crops import resize_by_loops
from vrl_jax.augment.clip_views import Augment, center_view, make_views
from vrl_jax.augment.photometric import subtract_background
from vrl_jax.types import View

KEY = jax.random.wrap_key_data(np.array([0, 3], np.uint32))  # compiles nothing
_draw_views = jax.jit(make_views, static_argnums=(2, 3))


def draw_views(*args):
    return np.asarray(_draw_views(*args))


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


def test_background_is_what_stands_still(rng):
    still, moving = random_clip(rng, 1, 6, 7), 0.2 * random_clip(rng, 5, 6, 7)
    clip = 0.5 * still + moving
    expected = 0.5 + moving - moving.mean(0)
    np.testing.assert_allclose(jax.jit(subtract_background)(clip), expected, atol=1e-6)
    u8 = random_u8(rng, 2, 5, 8, 8)
    mean = u8.astype(np.float64).mean(1, keepdims=True)
    expected = np.clip(0.5 + (u8 - mean) / 255, 0, 1)
    subtracting = replace(PLAIN, subtract_background=True)
    center = jax.jit(center_view, static_argnums=1)
    np.testing.assert_allclose(center(u8, subtracting), expected, atol=1e-5)
    views = draw_views(KEY, jnp.asarray(u8[:, None]), (View(0),), subtracting)
    np.testing.assert_allclose(views[:, 0], expected, atol=1e-5)


def test_a_still_view_keeps_what_moved_before_its_frame(rng):
    clips = jnp.asarray(random_u8(rng, 3, 1, 5, 8, 8))
    augment = replace(PLAIN, subtract_background=True)
    moving, still = np.moveaxis(
        draw_views(KEY, clips, (View(0), View(0, still=True)), augment), 1, 0
    )
    assert still.std((2, 3)).min() > 0.05
    for video, repeated in zip(moving, still, strict=True):
        np.testing.assert_array_equal(repeated, np.broadcast_to(repeated[:1], repeated.shape))
        assert min(np.abs(frame - repeated[0]).max() for frame in video) < 1e-6


def test_views_without_augmentation_are_the_clips_they_name(rng):
    clips = random_u8(rng, 2, 3, 4, 8, 8)
    got = draw_views(KEY, jnp.asarray(clips), (View(2), View(0), View(2)), PLAIN)
    np.testing.assert_allclose(got, clips[:, [2, 0, 2]] / 255.0, atol=1e-6)


def test_one_draw_for_all_frames_and_another_for_every_video_and_view(rng):
    still = np.broadcast_to(random_u8(rng, 1, 1, 1, 12, 10), (3, 2, 2, 12, 10, 3))
    got = draw_views(KEY, still, (View(0), View(1)), Augment(size=8))
    assert got.shape == (3, 2, 2, 8, 8, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, np.broadcast_to(got[:, :, :1], got.shape), atol=1e-5)
    flat = got.reshape(6, -1)
    for i in range(6):
        for j in range(i):
            assert abs(flat[i] - flat[j]).max() > 0.1


def test_a_key_decides_everything(rng):
    clips = jnp.asarray(random_u8(rng, 3, 2, 2, 12, 10))
    views, augment = (View(0), View(1)), Augment(size=8)
    first = np.asarray(draw_views(KEY, clips, views, augment))
    np.testing.assert_array_equal(first, draw_views(KEY, clips, views, augment))
    assert abs(first - draw_views(jax.random.key(4), clips, views, augment)).max() > 0.1


def test_the_same_without_jit(rng):
    clips = jnp.asarray(random_u8(rng, 2, 1, 2, 12, 10))
    augment = replace(PLAIN, crop="plain", flip=0.5, gray=0.5)
    views = (View(0),)
    without = make_views(KEY, clips, views, augment)
    np.testing.assert_allclose(draw_views(KEY, clips, views, augment), without, atol=1e-5)


def test_eight_devices_draw_what_one_device_draws(rng):
    clips = jnp.asarray(random_u8(rng, 8, 1, 2, 12, 10))
    views, augment = (View(0), View(0)), Augment(size=8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    spread = jax.device_put(clips, NamedSharding(mesh, PartitionSpec("data")))
    one, many = (_draw_views(KEY, c, views, augment) for c in (clips, spread))
    assert len(many.sharding.device_set) == 8
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_a_video_keeps_its_draw_whatever_stands_beside_it(rng):
    clips = random_u8(rng, 3, 2, 2, 12, 10)
    other = clips.copy()
    other[1:] = random_u8(rng, 2, 2, 2, 12, 10)
    views, augment = (View(0), View(1)), Augment(size=8)
    first, second = (draw_views(KEY, c, views, augment) for c in (clips, other))
    np.testing.assert_array_equal(first[0], second[0])
    assert abs(first[1] - second[1]).max() > 0.1


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
        expected = resize_by_loops(clips[n] / 255.0, corner, (side, side), 6)
        np.testing.assert_allclose(got[n], (expected - 0.45) / 0.225, atol=1e-4)


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
        ValueError, match="sides of at least augment.size=8 for plain crops, got 6 x"
    ):
        make_views(KEY, clips, (View(0),), replace(PLAIN, crop="plain"))


def test_all_views_of_a_video_are_reversed_together(rng):
    clips = random_u8(rng, 64, 2, 5, 8, 8)
    views = (View(0), View(1))
    plain = np.array(draw_views(KEY, clips, views, PLAIN))
    augmented = np.array(draw_views(KEY, clips, views, replace(PLAIN, reverse=0.5)))
    backwards = [np.array_equal(d, p[:, ::-1]) for d, p in zip(augmented, plain, strict=True)]
    forwards = [np.array_equal(d, p) for d, p in zip(augmented, plain, strict=True)]
    assert all(b != f for b, f in zip(backwards, forwards, strict=True))
    assert 16 < sum(backwards) < 48


def test_weak_views_keep_their_colours_and_others_do_not(rng):
    clips = random_u8(rng, 64, 1, 2, 8, 8)
    strong = replace(PLAIN, jitter=1.0, gray=0.0, blur=1.0, sigma=(2.0, 2.0))
    views = (View(0, weak=0.25), View(0))
    augmented = np.array(draw_views(KEY, clips, views, strong))
    plain = np.array(draw_views(KEY, clips, (View(0),), PLAIN))[:, 0]
    weak = np.array(
        [np.allclose(d, p, atol=1e-6) for d, p in zip(augmented[:, 0], plain, strict=True)]
    )
    assert 6 < weak.sum() < 28
    assert not any(
        np.allclose(d, p, atol=1e-2) for d, p in zip(augmented[:, 1], plain, strict=True)
    )


def test_a_clip_that_is_gray_first_keeps_its_gray_under_changes_of_hue(rng):
    """With all three strengths drawn, only brightness and contrast are left to change it."""
    clips = random_u8(rng, 8, 1, 2, 8, 8)
    colours = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.9, "hue": 0.5}
    gray = replace(PLAIN, gray=1.0, gray_kind="channel", jitter=1.0, **colours)
    plain = np.array(draw_views(KEY, clips, (View(0),), PLAIN))
    first, last = (
        np.array(draw_views(KEY, clips, (View(0),), replace(gray, gray_first=first)))
        for first in (True, False)
    )
    for one, other, clip in zip(first, last, plain, strict=True):
        assert any(np.allclose(one, clip[..., c : c + 1], atol=1e-4) for c in range(3))
        assert not any(np.allclose(other, clip[..., c : c + 1], atol=1e-2) for c in range(3))
