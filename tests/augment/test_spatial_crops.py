import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.test_photometric import drawn
from vrl_jax.augment import spatial_crops as C
from vrl_jax.augment.spatial_crops import Crops, fixed_crops

KEY = jax.random.wrap_key_data(np.array([0, 0], np.uint32))  # compiles nothing
cut = jax.jit(fixed_crops, static_argnums=(1, 2))


def random_clip(rng, t, h, w):
    return rng.random((t, h, w, 3), dtype=np.float32)


def resize_by_loops(clip, corner, extent, size):
    """One axis after the other: a triangle of half-width max(1, shrink) around each centre."""
    for axis in (0, 1):
        source = np.moveaxis(clip, axis + 1, 0).astype(np.float64)
        target = np.zeros((size, *source.shape[1:]))
        shrink = extent[axis] / size
        for i in range(size):
            center = corner[axis] + (i + 0.5) * shrink - 0.5
            total = 0.0
            for j in range(len(source)):
                weight = max(0.0, 1 - abs(j - center) / max(1.0, shrink))
                target[i] += weight * source[j]
                total += weight
            target[i] /= total
        clip = np.moveaxis(target, 0, axis + 1)
    return clip


@pytest.mark.parametrize("shape, size", [((2, 9, 13), 5), ((3, 6, 5), 11)])
def test_crop_resamples_the_drawn_box(rng, shape, size):
    clip = random_clip(rng, *shape)
    area, aspect = (0.3, 0.8), (0.75, 4 / 3)

    @jax.jit
    def crop(clip):
        box = C.draw_box(KEY, shape[1:], area, aspect)
        return box, C.random_resized_crop(KEY, clip, size, area, aspect)

    (corner, extent), got = jax.device_get(crop(clip))
    np.testing.assert_allclose(got, resize_by_loops(clip, corner, extent, size), atol=2e-5)


@pytest.mark.parametrize("frame", [(128, 171), (40, 30)])
def test_boxes_cover_the_asked_areas_and_aspects_inside_the_frame(frame):
    area, aspect = (0.2, 0.6), (0.75, 4 / 3)
    corner, extent = drawn(lambda key: C.draw_box(key, frame, area, aspect), 2000)
    share = extent.prod(axis=1) / np.prod(frame)
    ratio = extent[:, 1] / extent[:, 0]
    assert area[0] - 1e-5 < share.min() < 0.21 and 0.58 < share.max() < area[1] + 1e-5
    assert aspect[0] - 1e-5 < ratio.min() < 0.76 and 1.31 < ratio.max() < aspect[1] + 1e-5
    assert abs(share.mean() - 0.4) < 0.015  # uniform: nearly all boxes of these areas fit
    assert abs(np.log(ratio).mean()) < 0.02  # log-uniform
    assert corner.min() >= 0 and (corner + extent <= np.array(frame) + 1e-4).all()
    position = corner / (np.array(frame) - extent)
    assert (
        position.min() < 0.01
        and position.max() > 0.99
        and (abs(position.mean(axis=0) - 0.5) < 0.03).all()
    )


def test_a_box_that_never_fits_becomes_the_greatest_central_one():
    corner, extent = jax.jit(lambda key: C.draw_box(key, (20, 60), (0.9, 1.0), (0.75, 1.5)))(KEY)
    np.testing.assert_allclose(extent, [20, 30])
    np.testing.assert_allclose(corner, [0, 15])


def test_a_plain_crop_is_a_piece_of_the_frame(rng):
    clip = random_clip(rng, 3, 9, 11)
    positions = set()
    for got in drawn(lambda key: C.random_crop(key, jnp.array(clip), 7), 40):
        matches = [
            (top, column)
            for top, column in itertools.product(range(3), range(5))
            if np.array_equal(got, clip[:, top : top + 7, column : column + 7])
        ]
        assert len(matches) == 1
        positions |= set(matches)
    assert {top for top, _ in positions} == {0, 1, 2} and {
        column for _, column in positions
    } == set(range(5))


def test_a_scaled_crop_is_a_square_of_the_asked_share_of_the_shorter_side(monkeypatch):
    clip = jnp.zeros((1, 30, 40, 3))
    monkeypatch.setattr(C, "resize_box", lambda clip, corner, extent, size: (corner, extent))
    crop = C.random_scaled_crop.__wrapped__  # returns a box, which the annotations refuse
    corner, extent = drawn(lambda key: crop(key, clip, 8, (1.25, 2.0)), 300)
    factor = 30 / extent[:, 0]
    np.testing.assert_array_equal(extent[:, 0], extent[:, 1])
    assert 1.25 <= factor.min() < 1.27 and 1.97 < factor.max() <= 2 + 1e-6
    assert abs(factor.mean() - 1.625) < 0.05  # uniform
    position = corner / (np.array([30, 40]) - extent)
    assert (
        position.min() < 0.02
        and position.max() > 0.98
        and (abs(position.mean(0) - 0.5) < 0.06).all()
    )


@pytest.mark.parametrize("shape", [(10, 16), (15, 9)])
def test_fixed_crops_are_the_squares_at_their_places(rng, shape):
    clip = random_clip(rng, 2, *shape)
    side = 0.8 * min(shape)
    free = np.array(shape) - side
    at = {"center": [(0.5, 0.5)], "three": [(0, 0), (0.5, 0.5), (1, 1)]}
    at["ten"] = [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)]
    for positions, expected in at.items():
        crops = Crops(positions, 0.8)
        got = np.asarray(cut(clip, 5, crops))
        assert len(got) == len(crops) == {"center": 1, "three": 3, "ten": 10}[positions]
        for crop, position in zip(got, expected, strict=False):
            box = resize_by_loops(clip, free * position, (side, side), 5)
            np.testing.assert_allclose(crop, box, atol=2e-5)
        if positions == "ten":
            np.testing.assert_array_equal(got[5:], got[:5, :, :, ::-1])


@pytest.mark.parametrize("wrong", [{"positions": "nine"}, {"share": 0.0}, {"share": 1.1}])
def test_impossible_crops_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Crops(**wrong)


def test_a_square_that_needs_no_resizing_is_a_piece_of_the_frame(rng):
    clip = random_clip(rng, 2, 16, 21)
    for positions, corners in {"center": [(1, 4)], "three": [(0, 0), (1, 4), (2, 7)]}.items():
        got = np.asarray(cut(clip, 14, Crops(positions, 14 / 16)))
        for crop, (top, column) in zip(got, corners, strict=True):
            np.testing.assert_allclose(
                crop, clip[:, top : top + 14, column : column + 14], atol=1e-6
            )


def test_flip_mirrors_about_as_often_as_asked(rng):
    clip = random_clip(rng, 2, 4, 5)
    got = drawn(lambda key: C.random_flip(key, jnp.asarray(clip), 0.3), 1000)
    mirrored = (got == clip[:, :, ::-1]).all(axis=(1, 2, 3, 4))
    unchanged = (got == clip).all(axis=(1, 2, 3, 4))
    assert (mirrored ^ unchanged).all() and abs(mirrored.mean() - 0.3) < 0.05
    same = jnp.asarray(clip)
    assert C.random_flip(KEY, same, 0.0) is same
