import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.test_sinkhorn_knopp import BALANCED
from vrl_jax.losses import (
    concept_alignment,
    local_contrast,
    negative_entropy,
    shared_activations,
    sinkhorn,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("queued", [False, True])
def test_alignment_agrees_with_loops(rng, queued):
    scores = rng.uniform(-1, 1, (3, 5, 4)).astype(np.float32)
    queue = rng.normal(size=(3, 7, 4)).astype(np.float32)
    targets = [
        np.array(sinkhorn(jnp.array(np.concatenate([s, q]) if queued else s)))[:5]
        for s, q in zip(scores, queue, strict=True)
    ]
    terms = []
    for i, k in itertools.permutations(range(3), 2):
        rows = [
            -sum(
                q * (s / 0.1 - math.log(sum(math.exp(x / 0.1) for x in row)))
                for q, s in zip(target, row, strict=True)
            )
            for target, row in zip(targets[i], scores[k].astype(float), strict=True)
        ]
        terms.append(np.mean(rows))
    got = concept_alignment(jnp.array(scores), jnp.array(queue) if queued else None)
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-4)


def test_alignment_has_the_known_values_and_invariances(rng):
    for k, expected in ((100, 4.6051702), (50, 3.9120230)):
        assert float(concept_alignment(jnp.full((4, 6, k), 0.2))) == pytest.approx(
            expected, rel=1e-6
        )
    same = jnp.stack([BALANCED] * 4)
    assert float(concept_alignment(same)) == pytest.approx(1.4244284e-03, rel=1e-4)
    scores = jnp.array(rng.uniform(-1, 1, (4, 6, 5)), jnp.float32)
    order = jnp.array([4, 2, 0, 1, 3])
    base = float(concept_alignment(scores))
    assert float(concept_alignment(scores[..., order])) == pytest.approx(base, rel=1e-5)
    one = scores.at[0].set(scores[0][:, order])
    assert abs(float(concept_alignment(one)) - base) > 1e-2


def test_irrelevance_has_the_known_values():
    assert float(negative_entropy(jnp.zeros((3, 100)))) == pytest.approx(-4.605170, rel=1e-6)
    one = jnp.zeros((1, 100)).at[0, 7].set(1.0)
    assert float(negative_entropy(one)) == pytest.approx(-0.0492293, rel=1e-4)
    scores = np.array([[0.3, -0.2], [0.9, 0.1]])
    p = np.exp(scores / 0.1) / np.exp(scores / 0.1).sum(1, keepdims=True)
    expected = np.mean(np.sum(p * np.log(p), axis=1))
    assert float(negative_entropy(jnp.array(scores, jnp.float32))) == pytest.approx(
        expected, rel=1e-4
    )


def test_shared_activations_are_strictly_above_the_threshold_in_both():
    x = jnp.arange(12.0)[None]
    assert int(shared_activations(x, x).sum()) == 9
    tied = x.at[0, 3].set(2.0)  # the tenth largest, 2, is now twice there
    assert int(shared_activations(tied, tied).sum()) == 8 + (12 - 3 - 9)
    other = x[:, ::-1]
    both = np.array(shared_activations(x, other))[0]
    np.testing.assert_array_equal(np.flatnonzero(both), np.arange(3, 9))
    with pytest.raises(ValueError, match=r"top must lie in \[1, 12\], .*concepts, got 13"):
        shared_activations(x, x, top=13)


def local_by_loops(first, second, mask, margin):
    total, clips = 0.0, len(first)
    for a, b in ((first, second), (second, first)):
        for i, c in itertools.product(range(clips), range(first.shape[1])):
            if not mask[i, c]:
                continue
            for p in range(clips):
                distance = math.sqrt(max(2 - 2 * a[i, c] @ b[p, c], 0) + 1e-5)
                if p == i:
                    total += distance**2
                else:
                    total += max(0.0, margin - distance) ** 2 / (clips - 1)
    return total / (2 * mask.sum() + 1)


def test_local_contrast_agrees_with_loops(rng):
    first, second = unit(rng.normal(size=(2, 4, 5, 3)))
    mask = rng.random((4, 5)) < 0.5
    got = local_contrast(
        jnp.array(first, jnp.float32), jnp.array(second, jnp.float32), jnp.array(mask)
    )
    assert float(got) == pytest.approx(local_by_loops(first, second, mask, 1.4), rel=1e-4)


def test_local_contrast_has_the_known_values():
    same = jnp.zeros((2, 1, 4)).at[..., 0].set(1.0)
    mask = jnp.ones((2, 1), bool)
    assert float(local_contrast(same, same, mask)) == pytest.approx(1.5609325, rel=1e-5)
    assert float(local_contrast(same, same, ~mask)) == 0.0
    sixty = jnp.array([[[1.0, 0.0]], [[0.5, math.sqrt(3) / 2]]])
    expected = 2 * 2 * (1e-5 + 0.1599960) / 5
    assert float(local_contrast(sixty, sixty, mask)) == pytest.approx(expected, rel=1e-3)
    separated = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert float(local_contrast(separated, separated, mask)) == pytest.approx(4e-5 / 5, rel=1e-2)


def test_local_contrast_pulls_one_side_only(rng):
    first, second = (jnp.array(x, jnp.float32) for x in unit(rng.normal(size=(2, 3, 4, 5))))
    mask = jnp.ones((3, 4), bool)
    slopes = jax.grad(local_contrast, argnums=(0, 1))(first, second, mask)

    def one_way(vectors, target):
        distance = jnp.sum((vectors - jax.lax.stop_gradient(target)) ** 2, -1) + 1e-5
        return jnp.sum(distance) / 25

    # With a margin of (nearly) nothing only the positives are left: each side is pulled by its own
    # direction alone, half of what a two-sided slope would be.
    near = jax.grad(local_contrast, argnums=(0, 1))(first, second, mask, margin=1e-6)
    expected = jax.grad(one_way)(first, second)
    # On the sphere only the tangent part of |a - b|^2 = 2 - 2 a.b counts: 2a is radial.
    np.testing.assert_allclose(near[0], expected - 2 * first / 25, rtol=1e-3, atol=1e-5)
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)
