import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.jitted import jitted
from vrl_jax.losses import sinkhorn, swapped_prediction

BALANCED = np.float32([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
SKEWED = np.float32([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.8, 0.2]])


def assign(scores, **settings):
    return np.asarray(_assign(scores, **settings))


_assign = jitted(sinkhorn)


def by_loops(scores, epsilon, iterations):
    q = np.exp(np.array(scores, np.float64) / epsilon).T
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] /= q[k].sum() * prototypes
        for m in range(samples):
            q[:, m] /= q[:, m].sum() * samples
    return (q * samples).T


@pytest.mark.parametrize("n, k", [(5, 3), (8, 20)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_agrees_with_loops(rng, n, k, iterations):
    scores = rng.uniform(-1, 1, (n, k)).astype(np.float32)
    got = assign(scores, iterations=iterations)
    np.testing.assert_allclose(got, by_loops(scores, 0.05, iterations), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.sum(got, axis=1), 1, rtol=1e-5)


def test_sinkhorn_has_the_known_values():
    np.testing.assert_allclose(assign(np.full((6, 4), 0.3, np.float32)), 0.25, rtol=1e-6)
    got = assign(BALANCED)
    np.testing.assert_allclose(got[0], [0.99999989, 1.125e-07], rtol=1e-3)
    np.testing.assert_allclose(got[1], [0.99999386, 6.144e-06], rtol=1e-3)
    np.testing.assert_allclose(got[2:], got[:2, ::-1], rtol=1e-3)
    got = assign(SKEWED)
    np.testing.assert_allclose(got[0], [0.66844871, 0.33155129], rtol=1e-5)
    np.testing.assert_allclose(got[3], [0.03561159, 0.96438841], rtol=1e-5)
    np.testing.assert_allclose(np.sum(got, axis=0), [2.041, 1.959], atol=1e-3)


def test_sinkhorn_knows_its_invariances(rng):
    scores = rng.uniform(-1, 1, (6, 4)).astype(np.float32)
    base = assign(scores)
    moved = assign(scores + np.float32([0.3, -0.2, 0.0, 0.1]) + 5)
    np.testing.assert_allclose(moved, base, rtol=1e-3, atol=1e-6)
    rows, columns = [3, 1, 0, 5, 2, 4], [2, 0, 3, 1]
    np.testing.assert_allclose(assign(scores[rows][:, columns]), base[rows][:, columns], rtol=1e-4)
    scores[0] += 0.5
    assert 1e-6 < np.abs(assign(scores) - base).max()  # approximate at 3 iterations, no more
    assert not np.any(jax.jit(jax.grad(lambda s: sinkhorn(s)[0, 0]))(scores))
    assert np.isfinite(assign(100 * scores)).all()


def test_swapped_prediction_agrees_with_loops(rng):
    scores = rng.uniform(-1, 1, (5, 3))
    target = rng.dirichlet(np.ones(3), 5)
    total = 0.0
    for row, expected in zip(scores, target, strict=True):
        sizes = [math.exp(s / 0.2) for s in row]
        total -= sum(w * math.log(x / sum(sizes)) for w, x in zip(expected, sizes, strict=True))
    arrays = scores.astype(np.float32), target.astype(np.float32)
    got = jitted(swapped_prediction)(*arrays, temperature=0.2)
    assert float(got) == pytest.approx(total / 5, rel=1e-5)


def test_bad_input_is_named():
    scores = jnp.array(BALANCED)
    with pytest.raises(ValueError, match="epsilon must be above 0, got 0"):
        sinkhorn(scores, epsilon=0)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        sinkhorn(scores, iterations=0)
    with pytest.raises((ValueError, TypeCheckError)):
        swapped_prediction(scores, jnp.array(BALANCED[:3]))
