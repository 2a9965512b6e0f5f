"""Mixup, CutMix, smoothed labels and random erasing, by the published definitions in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.augment.mixing import Mix, cut_box, draw_shares, mix_views, smooth_labels
from vrl_jax.augment.random_erasing import erase_box

FRAME = (9, 14)


def is_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask.sum() == np.ptp(rows) * np.ptp(columns) + np.ptp(rows) + np.ptp(columns) + 1


def test_a_cut_box_is_that_of_the_paper(rng):
    shares = rng.random(40).astype(np.float32)
    centers = rng.integers(0, FRAME, (40, 2)).astype(np.int32)
    boxes = jax.jit(jax.vmap(lambda share, at: cut_box(share, at, FRAME)))(shares, centers)
    for share, (y, x), box in zip(shares, centers, np.asarray(boxes), strict=True):
        height, width = (int(side * np.sqrt(1 - share)) for side in FRAME)
        expected = np.zeros(FRAME)
        top, left = max(y - height // 2, 0), max(x - width // 2, 0)
        expected[top : y + height // 2, left : x + width // 2] = 1
        np.testing.assert_array_equal(box, expected)


def test_views_and_labels_are_mixed_with_their_group_in_reverse(rng):
    mix, key = Mix(mixup=0.8, cutmix=1.0, group=2), jax.random.key(3)
    views = rng.normal(size=(4, 2, 1, *FRAME, 3)).astype(np.float32)
    labels, rows = np.array([0, 1, 2, 1], np.int32), np.array([4, 6, 8, 10], np.int32)

    @jax.jit
    def draw_and_mix(views, labels, rows):
        numbers = jnp.concatenate([rows[::2], jnp.arange(2000)])
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        shares = jax.vmap(lambda key: draw_shares(key, FRAME, mix))(keys)
        return mix_views(key, views, labels, mix, rows), shares

    result, shares = draw_and_mix(views, labels, rows)
    shares = np.asarray(shares, np.float64)
    for video, view in np.ndindex(4, 2):
        share, other = shares[video // 2][None, :, :, None], 4 * (video // 2) + 1 - video
        expected = share * views[video, view] + (1 - share) * views[other, 1 - view]
        np.testing.assert_allclose(result.views[video, view], expected, atol=1e-6)
        np.testing.assert_allclose(result.share[video, view], share.mean(), atol=1e-6)
        assert result.others[video, view] == labels[other]

    cut = np.isin(shares, (0.0, 1.0)).all((1, 2))
    assert abs(cut.mean() - 0.5) < 0.05
    mixed = shares[~cut]
    np.testing.assert_array_equal(mixed, np.broadcast_to(mixed[:, :1, :1], mixed.shape))
    values = mixed[:, 0, 0]  # Beta(0.8, 0.8) has the variance 1 / (4 (2 x 0.8 + 1))
    assert abs(values.mean() - 0.5) < 0.04 and abs(values.var() - 1 / 10.4) < 0.01


def test_smoothed_labels_by_hand():
    targets = jax.jit(lambda labels: smooth_labels(labels, 4, 0.1))(jnp.array([2, 0]))
    expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    np.testing.assert_allclose(targets, expected, atol=1e-7)


def test_a_box_of_a_view_becomes_noise_that_differs_from_frame_to_frame():
    frame, count = (20, 30), 400
    view = jnp.full((2, *frame, 3), 9.0)
    keys = jax.random.split(jax.random.key(0), count)
    erased = np.asarray(jax.jit(jax.vmap(lambda key: erase_box(key, view, 0.25)))(keys))
    changed = (erased != 9.0).all(-1)
    np.testing.assert_array_equal(changed[:, 0], changed[:, 1])
    masks = changed[changed.any((1, 2, 3)), 0]
    assert abs(len(masks) / count - 0.25) < 0.07 and all(map(is_box, masks))
    areas = masks.mean((1, 2))
    assert 0.01 < areas.min() < 0.06 and 0.25 < areas.max() < 0.36
    noise = erased[erased != 9.0]
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert not np.array_equal(*np.swapaxes(erased[changed.any((1, 2, 3))], 0, 1))


@pytest.mark.parametrize("settings", [{"mixup": -1.0}, {"switch": 2.0}, {"probability": -0.5}])
def test_settings_that_cannot_be_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        Mix(**settings)
