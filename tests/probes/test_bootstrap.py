"""Intervals are as wide as the binomial ones, and wider where videos come in groups."""

import numpy as np
import pytest

from vrl_jax.probes.bootstrap import bootstrap_interval


def test_copies_in_a_group_count_once(rng):
    correct = rng.random(400) < 0.3
    share, videos = correct.mean(), np.arange(400)
    low, high = bootstrap_interval(correct, videos)
    assert low < share < high
    assert high - low == pytest.approx(3.92 * np.sqrt(share * (1 - share) / 400), rel=0.1)
    copies = np.tile(correct, 4), np.tile(videos, 4)
    assert bootstrap_interval(*copies) == pytest.approx([low, high])
    assert bootstrap_interval(copies[0], np.arange(1600))[0] > low + 0.01
