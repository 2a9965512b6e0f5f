import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.jitted import jitted
from vrl_jax.losses import shuffle_rank, shuffle_rank_accuracy

ORTHONORMAL = np.eye(2, dtype=np.float32)[None]
SWAPPED = ORTHONORMAL[:, ::-1]
FOUR = np.eye(4, dtype=np.float32)[None]
EQUAL = np.ones((1, 2, 2), np.float32)
TURNED = np.float32([[[math.sqrt(3) / 2, 0.5], [-0.5, math.sqrt(3) / 2]]])

rank = jitted(shuffle_rank)
accuracy = jax.jit(shuffle_rank_accuracy)


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
    a, p = rng.normal(size=(2, n, s, d)).astype(np.float32)
    expected = by_loops(a.astype(np.float64), p.astype(np.float64), 0.2, cap or math.inf)
    got = rank(a, p, temperature=0.2, cap=cap)
    assert float(got) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "a, p, cap, expected",
    [
        (ORTHONORMAL, ORTHONORMAL, 5.0, 2.0611536e-09),
        (FOUR, FOUR, 5.0, 2.0611536e-09),
        (EQUAL, EQUAL, 5.0, 0.6931472),
        (ORTHONORMAL, SWAPPED, 5.0, 2.8499313),
        (ORTHONORMAL, SWAPPED, None, 10.3465736),
        (ORTHONORMAL, TURNED, 5.0, 1.6541676e-04),
    ],
)
def test_shuffle_rank_has_the_known_values(a, p, cap, expected):
    assert float(rank(a, p, cap=cap)) == pytest.approx(expected, rel=1e-4)


def test_pairs_beyond_the_cap_have_no_slope():
    # The pairs with the counterpart's neighbour are beyond the cap at the default temperature.
    slope = jitted(jax.grad(shuffle_rank, argnums=1))
    assert np.abs(slope(ORTHONORMAL, SWAPPED, cap=None)).max() > 1
    assert np.abs(slope(ORTHONORMAL, SWAPPED)).max() < 1e-6
    assert np.abs(slope(ORTHONORMAL, SWAPPED, temperature=1.0)).max() > 0.1


def test_shuffle_rank_knows_its_invariances(rng):
    a, p = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    base = float(rank(a, p))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0].astype(np.float32)
    order = [2, 0, 3, 1]
    assert float(rank(a @ turn, p @ turn)) == pytest.approx(base, rel=1e-4)
    assert float(rank(p, a)) == pytest.approx(base, rel=1e-5)
    assert float(rank(a[:, order], p[:, order])) == pytest.approx(base, rel=1e-5)
    assert abs(float(rank(a, p[:, order])) - base) > 1e-2


def test_accuracy_counts_rows_whose_counterpart_is_nearest(rng):
    a, p = rng.normal(size=(2, 5, 3, 4))
    right = 0
    for clip in range(5):
        rows = [x / np.linalg.norm(x) for x in (*a[clip], *p[clip])]
        for r, row in enumerate(rows):
            others = [j for j in range(6) if j != r]
            right += max(others, key=lambda j: row @ rows[j]) == (r + 3) % 6
    got = accuracy(a.astype(np.float32), p.astype(np.float32))
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
    slots = np.eye(3, dtype=np.float32)[None]
    for order in itertools.permutations(range(3)):
        got = accuracy(slots, slots[:, order])
        assert float(got) == pytest.approx(np.mean([i == j for i, j in enumerate(order)]))
