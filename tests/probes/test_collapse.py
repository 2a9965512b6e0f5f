import numpy as np
import pytest

from vrl_jax.probes.collapse import collapse_metrics


@pytest.mark.parametrize("n, d", [(12, 5), (6, 9)])
def test_both_numbers_as_by_loops(rng, n, d):
    features = (rng.normal(size=(n, d)) * np.arange(1, d + 1) + 1).astype(np.float32)
    unit = [f / np.sqrt(sum(x * x for x in f)) for f in features.astype(float)]
    spread = 0.0
    for j in range(d):
        mean = sum(f[j] for f in unit) / n
        spread += np.sqrt(sum((f[j] - mean) ** 2 for f in unit) / n) / d
    centred = features.astype(float) - features.astype(float).mean(axis=0)
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(centred @ centred.T), 0))
    entropy = 0.0
    for p in singular / singular.sum():
        entropy -= p * np.log(p) if p > 1e-9 else 0
    got = collapse_metrics(features)
    assert got["feature_std"] == pytest.approx(spread * np.sqrt(d), rel=1e-4)
    assert got["effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-4)


def test_isotropic_features_score_one_and_full_rank(rng):
    got = collapse_metrics(rng.normal(size=(4000, 8)))
    assert got["feature_std"] == pytest.approx(1, abs=0.02)
    assert got["effective_rank"] == pytest.approx(8, abs=0.05)


def test_collapse_to_a_point_or_a_line_or_a_plane_shows(rng):
    point = collapse_metrics(np.tile(rng.normal(size=(1, 6)), (50, 1)))
    assert point["feature_std"] < 1e-6 and point["effective_rank"] == pytest.approx(1, abs=0.01)
    line = collapse_metrics(rng.normal(size=(50, 1)) * rng.normal(size=(1, 6)))
    assert line["effective_rank"] == pytest.approx(1, abs=0.01)
    basis = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    plane = collapse_metrics(rng.normal(size=(5000, 2)) @ basis.T)
    assert plane["effective_rank"] == pytest.approx(2, abs=0.01)


def test_refusals():
    with pytest.raises(ValueError, match="number of features"):
        collapse_metrics(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="finite"):
        collapse_metrics(np.array([[0.0, np.inf], [1.0, 2.0]]))
