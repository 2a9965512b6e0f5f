import numpy as np
import pytest

from vrl_jax.factors import units


def test_correlation_as_by_loops(rng):
    first = rng.normal(size=(30, 4)).astype(np.float32) * [1, 5, 1, 1] + [0, 3, -2, 4]
    second = first * [1, 1, -1, 0] + rng.normal(size=(30, 4)) * [0, 3, 0.1, 0] + [0, 1, 0, 4]
    first[:, 3] = second[:, 3] = 4
    correlation = units.correlate_channels(first, second)
    for channel in range(4):
        a, b = first[:, channel].tolist(), second[:, channel].tolist()
        mean = (sum(a) + sum(b)) / 60
        variance = sum((x - mean) ** 2 for x in a + b) / 60
        product = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / 30
        expected = product / variance if variance else 0
        assert correlation[channel] == pytest.approx(expected, abs=1e-6)
    assert correlation[0] == pytest.approx(1) and correlation[2] < 0 and correlation[3] == 0


@pytest.mark.parametrize("threshold, shares", [(0.5, (2, 1, 1, 2)), (0.0, (1, 0, 4, 1))])
def test_units_are_counted(threshold, shares):
    static = np.array([0.9, 0.8, 0.1, 0.7, 0.2, -0.9])
    dynamic = np.array([0.1, -0.2, 0.9, 0.6, 0.5, 0.0])
    counts = {r["name"]: r["value"] for r in units.unit_shares(static, dynamic, threshold)}
    kinds = ("static", "dynamic", "joint", "residual")
    assert counts == {f"units/{k}": share / 6 for k, share in zip(kinds, shares, strict=True)}


def test_restyling_changes_colours_alike_in_all_frames_and_keeps_what_moves(rng):
    clip = np.full((6, 24, 20, 3), 90, np.uint8)
    for number in range(6):
        clip[number, 8:14, 2 * number : 2 * number + 5] = [180, 60, 120]
    styled = units.restyle_clip(clip, 0)
    assert styled.shape == clip.shape and styled.dtype == np.uint8
    assert np.abs(styled.astype(int) - clip).mean() > 20
    np.testing.assert_array_equal(styled, units.restyle_clip(clip, 0))
    assert np.abs(styled.astype(int) - units.restyle_clip(clip, 1)).mean() > 10
    moves, moved = (np.abs(np.diff(x.astype(int), axis=0)).sum(-1) for x in (clip, styled))
    np.testing.assert_array_equal(moves > 0, moved > 3)
    np.testing.assert_array_equal(styled[0, 0], styled[5, 0])  # the background stays still


def test_colours_are_restyled_differently_from_clip_to_clip(rng):
    clips = rng.integers(0, 256, (200, 1, 1, 1, 3)).astype(np.uint8)
    clips = np.broadcast_to(clips, (200, 2, 8, 8, 3))
    styled = np.stack([units.restyle_clip(np.ascontiguousarray(clip), 0) for clip in clips])
    colours, turned = (each.mean((1, 2, 3)) for each in (clips, styled))
    assert np.abs(units.correlate_channels(colours, turned)).max() < 4 / np.sqrt(200)
