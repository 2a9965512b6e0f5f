import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vrl_jax.losses import sinkhorn, swapped_prediction

BALANCED = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
SKEWED = jnp.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.8, 0.2]])


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
    got = sinkhorn(jnp.array(scores), iterations=iterations)
    np.testing.assert_allclose(got, by_loops(scores, 0.05, iterations), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.sum(got, axis=1), 1, rtol=1e-5)


def test_sinkhorn_has_the_known_values():
    np.testing.assert_allclose(sinkhorn(jnp.full((6, 4), 0.3)), 0.25, rtol=1e-6)
    got = sinkhorn(BALANCED)
    np.testing.assert_allclose(got[0], [0.99999989, 1.125e-07], rtol=1e-3)
    np.testing.assert_allclose(got[1], [0.99999386, 6.144e-06], rtol=1e-3)
    np.testing.assert_allclose(got[2:], got[:2, ::-1], rtol=1e-3)
    got = sinkhorn(SKEWED)
    np.testing.assert_allclose(got[0], [0.66844871, 0.33155129], rtol=1e-5)
    np.testing.assert_allclose(got[3], [0.03561159, 0.96438841], rtol=1e-5)
    np.testing.assert_allclose(np.sum(got, axis=0), [2.041, 1.959], atol=1e-3)


def test_sinkhorn_knows_its_invariances(rng):
    scores = jnp.array(rng.uniform(-1, 1, (6, 4)), jnp.float32)
    base = sinkhorn(scores)
    moved = sinkhorn(scores + jnp.array([0.3, -0.2, 0.0, 0.1]) + 5)
    np.testing.assert_allclose(moved, base, rtol=1e-3, atol=1e-6)
    rows, columns = jnp.array([3, 1, 0, 5, 2, 4]), jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        sinkhorn(scores[rows][:, columns]), base[rows][:, columns], rtol=1e-4
    )
    by_sample = sinkhorn(scores.at[0].add(0.5))
    assert 1e-6 < np.abs(by_sample - base).max()  # approximate at 3 iterations, no more
    assert not np.any(jax.grad(lambda s: sinkhorn(s)[0, 0])(scores))
    assert np.isfinite(sinkhorn(100 * scores)).all()


def test_swapped_prediction_agrees_with_loops(rng):
    scores = rng.uniform(-1, 1, (5, 3))
    target = rng.dirichlet(np.ones(3), 5)
    total = 0.0
    for row, expected in zip(scores, target, strict=True):
        sizes = [math.exp(s / 0.2) for s in row]
        total -= sum(w * math.log(x / sum(sizes)) for w, x in zip(expected, sizes, strict=True))
    got = swapped_prediction(
        jnp.array(scores, jnp.float32), jnp.array(target, jnp.float32), temperature=0.2
    )
    assert float(got) == pytest.approx(total / 5, rel=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="epsilon must be above 0, got 0"):
        sinkhorn(BALANCED, epsilon=0)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        sinkhorn(BALANCED, iterations=0)
    with pytest.raises((ValueError, TypeCheckError)):
        swapped_prediction(BALANCED, BALANCED[:3])
