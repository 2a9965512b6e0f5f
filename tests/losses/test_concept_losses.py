import itertools
import math

import jax
import numpy as np
import pytest

from tests.jitted import jitted
from tests.losses.test_sinkhorn_knopp import BALANCED, assign
from vrl_jax.losses import (
    concept_alignment,
    local_contrast,
    negative_entropy,
    shared_activations,
)

align = jitted(concept_alignment)
entropy = jitted(negative_entropy)
contrast = jitted(local_contrast)
shared = jitted(shared_activations)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("queued", [False, True])
def test_alignment_agrees_with_loops(rng, queued):
    scores = rng.uniform(-1, 1, (3, 5, 4)).astype(np.float32)
    queue = rng.normal(size=(3, 7, 4)).astype(np.float32)
    targets = [
        assign(np.concatenate([s, q]) if queued else s)[:5]
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
    got = align(scores, queue if queued else None)
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-4)


def test_alignment_has_the_known_values_and_invariances(rng):
    for k, expected in ((100, 4.6051702), (50, 3.9120230)):
        uniform = np.full((4, 6, k), 0.2, np.float32)
        assert float(align(uniform)) == pytest.approx(expected, rel=1e-6)
    assert float(align(np.stack([BALANCED] * 4))) == pytest.approx(1.4244284e-03, rel=1e-4)
    scores = rng.uniform(-1, 1, (4, 6, 5)).astype(np.float32)
    order = [4, 2, 0, 1, 3]
    base = float(align(scores))
    assert float(align(scores[..., order])) == pytest.approx(base, rel=1e-5)
    scores[0] = scores[0][:, order]
    assert abs(float(align(scores)) - base) > 1e-2


def test_irrelevance_has_the_known_values():
    scores = np.zeros((2, 100), np.float32)
    assert float(entropy(scores)) == pytest.approx(-4.605170, rel=1e-6)
    scores[:, 7] = 1
    assert float(entropy(scores)) == pytest.approx(-0.0492293, rel=1e-4)
    scores = np.float32([[0.3, -0.2], [0.9, 0.1]])
    p = np.exp(scores / 0.1) / np.exp(scores / 0.1).sum(1, keepdims=True)
    expected = np.mean(np.sum(p * np.log(p), axis=1))
    assert float(entropy(scores)) == pytest.approx(expected, rel=1e-4)


def test_shared_activations_are_strictly_above_the_threshold_in_both():
    x = np.arange(12, dtype=np.float32)[None]
    assert np.sum(shared(x, x)) == 9
    tied = x.copy()
    tied[0, 3] = 2  # the tenth largest, 2, is now twice there
    assert np.sum(shared(tied, tied)) == 8 + (12 - 3 - 9)
    both = np.array(shared(x, x[:, ::-1]))[0]
    np.testing.assert_array_equal(np.flatnonzero(both), np.arange(3, 9))
    with pytest.raises(ValueError, match=r"top must lie in \[1, 12\], .*concepts, got 13"):
        shared(x, x, top=13)


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
    got = contrast(first.astype(np.float32), second.astype(np.float32), mask)
    assert float(got) == pytest.approx(local_by_loops(first, second, mask, 1.4), rel=1e-4)


def test_local_contrast_has_the_known_values():
    same = np.float32([[[1, 0]], [[1, 0]]])
    mask = np.ones((2, 1), bool)
    assert float(contrast(same, same, mask)) == pytest.approx(1.5609325, rel=1e-5)
    assert float(contrast(same, same, ~mask)) == 0.0
    sixty = np.float32([[[1, 0]], [[0.5, math.sqrt(3) / 2]]])
    expected = 2 * 2 * (1e-5 + 0.1599960) / 5
    assert float(contrast(sixty, sixty, mask)) == pytest.approx(expected, rel=1e-3)
    separated = np.float32([[[1, 0]], [[0, 1]]])
    assert float(contrast(separated, separated, mask)) == pytest.approx(4e-5 / 5, rel=1e-2)


def test_local_contrast_pulls_one_side_only(rng):
    first, second = unit(rng.normal(size=(2, 3, 4, 5))).astype(np.float32)
    mask = np.ones((3, 4), bool)
    slopes_of = jitted(jax.grad(local_contrast, argnums=(0, 1)))
    slopes = slopes_of(first, second, mask)
    # With a margin of (nearly) nothing only the positives are left: each side is pulled by its own
    # direction alone, half of what a two-sided slope would be.
    near = slopes_of(first, second, mask, margin=1e-6)
    # On the sphere only the tangent part of |a - b|^2 = 2 - 2 a.b counts: 2a is radial.
    expected = 2 * (first - second) / 25 - 2 * first / 25
    np.testing.assert_allclose(near[0], expected, rtol=1e-3, atol=1e-5)
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)
