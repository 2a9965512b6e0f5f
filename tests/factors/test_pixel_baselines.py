import numpy as np
import pytest

from vrl_jax.factors import pixel_baselines


def shrink_by_loops(image):
    """Average over areas by sampling each pixel finely."""
    fine = np.repeat(np.repeat(image, 32, 0), 32, 1)
    h, w = image.shape
    return fine.reshape(32, h, 32, w).mean((1, 3)).ravel()


@pytest.mark.parametrize("frames, height, width", [(5, 40, 32), (4, 16, 70)])
def test_floors_as_by_loops(rng, frames, height, width):
    clips = rng.integers(0, 256, (3, frames, height, width, 3)).astype(np.uint8)
    still, moving = pixel_baselines.appearance_pixels(clips), pixel_baselines.motion_pixels(clips)
    assert still.shape == moving.shape == (3, 1024)
    for number in range(3):
        grey = clips[number].astype(float).mean(-1)
        np.testing.assert_allclose(still[number], shrink_by_loops(grey[frames // 2]), rtol=1e-4)
        change = sum(abs(grey[t + 1] - grey[t]) for t in range(frames - 1)) / (frames - 1)
        np.testing.assert_allclose(moving[number], shrink_by_loops(change), rtol=1e-4)


def test_motion_in_order_is_that_of_consecutive_segments(rng):
    clips = rng.integers(0, 256, (2, 7, 32, 32, 3)).astype(np.uint8)
    ordered = pixel_baselines.ordered_motion_pixels(clips, 3)
    assert ordered.shape == (2, 3 * 1024)
    for k, part in enumerate(np.split(ordered, 3, axis=1)):
        own = pixel_baselines.motion_pixels(clips[:, 2 * k : 2 * k + 3])
        np.testing.assert_allclose(part, own, rtol=1e-5)
    coarse = pixel_baselines.ordered_motion_pixels(clips, 3, side=4)
    fine = ordered.reshape(2, 3, 4, 8, 4, 8)
    np.testing.assert_allclose(coarse, fine.mean((3, 5)).reshape(2, 48), rtol=1e-5)
    with pytest.raises(ValueError, match="segments must be below 7, the frames, got 7"):
        pixel_baselines.ordered_motion_pixels(clips, 7)
