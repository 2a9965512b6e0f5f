import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vrl_jax.losses import shuffle_rank, shuffle_rank_accuracy

ORTHONORMAL = jnp.eye(2)[None]
SWAPPED = ORTHONORMAL[:, ::-1]


def by_loops(reference, shuffled, temperature, cap):
    total, count = 0.0, 0
    for a, p in zip(reference, shuffled, strict=True):
        rows = [x / np.linalg.norm(x) for x in (*a, *p)]
        segments = len(a)
        for r in range(2 * segments):
            c = (r + segments) % (2 * segments)
            for j in range(2 * segments):
                if j in (r, c):
                    continue
                excess = (rows[r] @ rows[j] - rows[r] @ rows[c]) / temperature
                total += math.log1p(math.exp(min(excess, cap)))
                count += 1
    return total / count


@pytest.mark.parametrize("n, s, d", [(3, 2, 4), (2, 4, 5)])
@pytest.mark.parametrize("cap", [5.0, None])
def test_shuffle_rank_agrees_with_loops(rng, n, s, d, cap):
    a, p = (jnp.array(x, jnp.float32) for x in rng.normal(size=(2, n, s, d)))
    expected = by_loops(np.array(a, np.float64), np.array(p, np.float64), 0.2, cap or math.inf)
    got = shuffle_rank(a, p, temperature=0.2, cap=cap)
    assert float(got) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "a, p, cap, expected",
    [
        (ORTHONORMAL, ORTHONORMAL, 5.0, 2.0611536e-09),
        (jnp.eye(4)[None], jnp.eye(4)[None], 5.0, 2.0611536e-09),
        (jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3)), 5.0, 0.6931472),
        (ORTHONORMAL, SWAPPED, 5.0, 2.8499313),
        (ORTHONORMAL, SWAPPED, None, 10.3465736),
        (
            ORTHONORMAL,
            jnp.array([[[math.sqrt(3) / 2, 0.5], [-0.5, math.sqrt(3) / 2]]]),
            5.0,
            1.6541676e-04,
        ),
    ],
)
def test_shuffle_rank_has_the_known_values(a, p, cap, expected):
    assert float(shuffle_rank(a, p, cap=cap)) == pytest.approx(expected, rel=1e-4)


def test_pairs_beyond_the_cap_have_no_slope():
    # The matching pair of the other segments is beyond the cap; equal segments are not.
    slope = jax.grad(lambda p: shuffle_rank(ORTHONORMAL, p))(SWAPPED)
    free = jax.grad(lambda p: shuffle_rank(ORTHONORMAL, p, cap=None))(SWAPPED)
    slope = jax.grad(lambda p: shuffle_rank(ORTHONORMAL, p, temperature=1.0))(SWAPPED)
    assert np.abs(free).max() > 1 and np.abs(slope).max() > 0
    # What is left comes from the pairs of excess 0 alone: each row against its own clip's other.
    assert np.abs(slope).max() < np.abs(free).max()


def test_shuffle_rank_knows_its_invariances(rng):
    a, p = (jnp.array(x, jnp.float32) for x in rng.normal(size=(2, 3, 4, 5)))
    base = float(shuffle_rank(a, p))
    turn = jnp.array(np.linalg.qr(rng.normal(size=(5, 5)))[0], jnp.float32)
    order = jnp.array([2, 0, 3, 1])
    assert float(shuffle_rank(a @ turn, p @ turn)) == pytest.approx(base, rel=1e-4)
    assert float(shuffle_rank(p, a)) == pytest.approx(base, rel=1e-5)
    assert float(shuffle_rank(a[:, order], p[:, order])) == pytest.approx(base, rel=1e-5)
    assert abs(float(shuffle_rank(a, p[:, order])) - base) > 1e-2


def test_accuracy_counts_rows_whose_counterpart_is_nearest(rng):
    a, p = rng.normal(size=(2, 5, 3, 4))
    right = 0
    for clip in range(5):
        rows = [x / np.linalg.norm(x) for x in (*a[clip], *p[clip])]
        for r, row in enumerate(rows):
            others = [j for j in range(6) if j != r]
            right += max(others, key=lambda j: row @ rows[j]) == (r + 3) % 6
    got = shuffle_rank_accuracy(jnp.array(a, jnp.float32), jnp.array(p, jnp.float32))
    # Where all beat nothing but the other clip's own segment: the same count.
    assert float(got) == pytest.approx(right / 30)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="number of segments must be at least 2, got 1"):
        shuffle_rank(jnp.ones((3, 1, 4)), jnp.ones((3, 1, 4)))
    with pytest.raises((ValueError, TypeCheckError)):
        shuffle_rank(jnp.ones((3, 2, 4)), jnp.ones((3, 3, 4)))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        shuffle_rank(jnp.ones((3, 2, 4)), jnp.ones((3, 2, 4)), temperature=0.0)


def test_every_order_can_be_told_apart():
    """Slots that are orthonormal find their order whatever it is, and only their own."""
    for order in itertools.permutations(range(3)):
        accuracy = shuffle_rank_accuracy(jnp.eye(3)[None], jnp.eye(3)[None][:, jnp.array(order)])
        assert float(accuracy) == pytest.approx(np.mean([i == j for i, j in enumerate(order)]))
