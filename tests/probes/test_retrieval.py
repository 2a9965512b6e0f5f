import numpy as np
import pytest

from vrl_jax.probes import retrieval
from vrl_jax.probes.retrieval import nearest_neighbours, recall_at


def features(rng, n, d):
    """A common offset makes centring matter."""
    return (rng.normal(size=(n, d)) + 2 * np.arange(d)).astype(np.float32)


def rank_by_loops(queries, gallery, center):
    queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
    own = sum(queries) / len(queries)
    mean = sum(gallery) / len(gallery)
    if center == "train":
        queries, gallery = queries - mean, gallery - mean
    if center == "each":
        queries, gallery = queries - own, gallery - mean
    ranked, similarity = [], []
    for query in queries:
        cosine = [q @ query / np.sqrt((q @ q) * (query @ query)) for q in gallery]
        order = sorted(range(len(gallery)), key=lambda i: -cosine[i])
        ranked.append(order)
        similarity.append([cosine[i] for i in order])
    return np.array(ranked), np.array(similarity)


@pytest.mark.parametrize("center", ["none", "train", "each"])
@pytest.mark.parametrize("q, g, d", [(7, 30, 5), (19, 12, 8)])
def test_neighbours_and_recall_as_by_loops(rng, monkeypatch, center, q, g, d):
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 4)  # whole blocks and a remainder
    queries, gallery = features(rng, q, d), features(rng, g, d)
    query_labels, gallery_labels = rng.integers(0, 6, q), rng.integers(0, 6, g)
    ranked, expected = rank_by_loops(queries, gallery, center)

    indices, similarity = nearest_neighbours(queries, gallery, 6, center)
    np.testing.assert_array_equal(indices, ranked[:, :6])
    np.testing.assert_allclose(similarity, expected[:, :6], atol=1e-5)

    recall = recall_at(queries, query_labels, gallery, gallery_labels, ks=(1, 3, 8), center=center)
    for k in (1, 3, 8):
        hits = 0
        for i in range(q):
            hits += any(gallery_labels[j] == query_labels[i] for j in ranked[i, :k])
        assert recall[k] == pytest.approx(hits / q)


def test_centring_modes_differ(rng):
    queries, gallery = features(rng, 9, 6) + np.float32(3), features(rng, 20, 6)
    results = [nearest_neighbours(queries, gallery, 3, c)[1] for c in ("none", "train", "each")]
    for i in range(3):
        for j in range(i):
            assert abs(results[i] - results[j]).max() > 0.01


def test_agrees_with_scikit_learn(rng):
    sklearn = pytest.importorskip("sklearn.neighbors")
    queries, gallery = features(rng, 20, 16), features(rng, 50, 16)
    model = sklearn.NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute")
    distance, expected = model.fit(gallery).kneighbors(queries)
    indices, similarity = nearest_neighbours(queries, gallery, 5)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(1 - similarity, distance, atol=1e-5)


def test_shuffled_labels_find_by_chance(rng):
    labels = np.repeat(np.arange(10), 40)
    means = 5 * rng.normal(size=(10, 16))
    data = (means[labels] + rng.normal(size=(400, 16))).astype(np.float32)
    parts = data[::2], data[1::2]
    assert recall_at(parts[0], labels[::2], parts[1], labels[1::2], ks=(1,))[1] == 1
    shuffled = rng.permutation(labels[1::2])
    assert abs(recall_at(parts[0], labels[::2], parts[1], shuffled, ks=(1,))[1] - 0.1) < 0.08


def test_refusals(rng):
    queries, gallery = features(rng, 4, 3), features(rng, 6, 3)
    labels = np.zeros(6, int)
    with pytest.raises(ValueError, match=r"\[1, 6\].*got 10"):
        recall_at(queries, labels[:4], gallery, labels, ks=(1, 10))
    with pytest.raises(ValueError, match="k"):
        recall_at(queries, labels[:4], gallery, labels, ks=(0, 1))
    with pytest.raises(ValueError, match="center"):
        nearest_neighbours(queries, gallery, 1, "test")
    gallery[2, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        nearest_neighbours(queries, gallery, 1)
