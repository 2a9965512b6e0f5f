"""The recurrence of RVM; `tests/convert/test_flax_files.py` compares its tokens with loops."""

import math

import jax
import numpy as np
import pytest

from tests.encoders.reference import count, fill, shapes_of
from vrl_jax.encoders.rvm import RVM, resize_positions

SMALL = RVM(width=12, depth=1, heads=2, patch=4, core_depth=1)


def weights_of(length):
    """Return how Keys' cubic filter weighs 16 samples, wider where there are fewer outputs."""
    weights = np.zeros((length, 16))
    scale = 16 / length
    for n in range(length):
        for sample in range(16):
            x = abs((n + 0.5) * scale - 0.5 - sample) / max(scale, 1)
            if x < 1:
                weights[n, sample] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weights[n, sample] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights[n] /= weights[n].sum()
    return weights


def sines(height, width, channels):
    """Return the positions of the patches of a frame by loops."""
    table = np.zeros((16, 16, channels))
    for row, column, channel in np.ndindex(table.shape):
        angle = (16 * row + column) / 10000 ** (2 * (channel // 2) / channels)
        table[row, column, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return np.einsum("yh,xw,hwd->yxd", weights_of(height), weights_of(width), table)


@pytest.mark.parametrize("sides", [(16, 16), (14, 14), (3, 20)])
def test_positions_equal_loops(sides):
    np.testing.assert_allclose(resize_positions(*sides, 6), sines(*sides, 6), atol=1e-5)


def test_frames_depend_on_those_before_them_only(rng):
    variables = fill(SMALL.module(), (1, 4, 8, 12, 3), rng)
    encode = jax.jit(lambda clips: SMALL.module().apply(variables, clips, False))
    clips = rng.uniform(size=(1, 4, 8, 12, 3)).astype(np.float32)
    changed = clips.copy()
    changed[:, 2] = 0.0
    before, after = encode(clips), encode(changed)
    differences = np.abs(before.frames - after.frames).max((0, 2))
    assert not differences[:2].any() and (differences[2:] > 1e-3).all()
    inner = np.abs(before.stages[0] - after.stages[0]).max((0, 2, 3, 4))
    assert inner[2] > 1e-3 and not inner[[0, 1, 3]].any()


@pytest.mark.slow
def test_parameters_of_the_largest_size():
    _, variables = shapes_of(RVM(width=1280, depth=32).module(), (1, 2, 256, 256, 3))
    assert count(variables) == 742_178_560  # published as 743 M


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temporal_stride": 2}, "temporal_stride must be 1, got 2"),
        ({"core_depth": 0}, "core_depth"),
        ({"core_hidden": -1}, "core_hidden"),
        ({"core_heads": 5}, "width must be a multiple of core_heads 5, got 1024"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        RVM(**wrong)
