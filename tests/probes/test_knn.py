import numpy as np
import pytest

from vrl_jax.probes import knn


def blobs(rng, n, classes, d, spread):
    labels = rng.integers(0, classes, n)
    means = np.random.default_rng(7).normal(size=(classes, d))
    return (means[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


def accuracy_by_loops(train, train_labels, test, test_labels, k, temperature):
    right = 0
    for feature, label in zip(test.astype(float), test_labels, strict=True):
        cosine = [feature @ t / np.sqrt((feature @ feature) * (t @ t)) for t in train.astype(float)]
        votes = {}
        for i in sorted(range(len(train)), key=lambda i: -cosine[i])[:k]:
            weight = np.exp(cosine[i] / temperature)
            votes[train_labels[i]] = votes.get(train_labels[i], 0) + weight
        right += max(votes, key=votes.get) == label
    return right / len(test)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (7, 0.07), (20, 1.0), (20, 0.01)])
@pytest.mark.parametrize("n, m, classes, d", [(60, 40, 4, 6), (35, 50, 7, 9)])
def test_votes_as_by_loops(rng, k, temperature, n, m, classes, d):
    train, test = blobs(rng, n, classes, d, 1.5), blobs(rng, m, classes, d, 1.5)
    got = knn.knn_accuracy(*train, *test, k=k, temperature=temperature)
    assert got == pytest.approx(accuracy_by_loops(*train, *test, k, temperature))


def test_weights_matter(rng):
    train, test = blobs(rng, 60, 6, 4, 1.5), blobs(rng, 200, 6, 4, 1.5)
    assert knn.knn_accuracy(*train, *test, k=40) != knn.knn_accuracy(
        *train, *test, k=40, temperature=100.0
    )


def test_labels_need_not_be_contiguous(rng):
    (train, a), (test, b) = blobs(rng, 60, 3, 8, 0.1), blobs(rng, 30, 3, 8, 0.1)
    names = np.array([3, 40, 1])
    assert knn.knn_accuracy(train, names[a], test, names[b], k=5) == 1


def test_agrees_with_scikit_learn(rng):
    sklearn = pytest.importorskip("sklearn.neighbors")
    train, test = blobs(rng, 80, 5, 8, 1.2), blobs(rng, 60, 5, 8, 1.2)
    model = sklearn.KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / 0.07)
    )
    assert knn.knn_accuracy(*train, *test) == pytest.approx(model.fit(*train).score(*test))


def test_shuffled_labels_give_chance(rng):
    (train, labels), test = blobs(rng, 400, 4, 8, 0.3), blobs(rng, 400, 4, 8, 0.3)
    assert knn.knn_accuracy(train, labels, *test) > 0.95
    assert abs(knn.knn_accuracy(train, rng.permutation(labels), *test) - 0.25) < 0.2


def test_refusals(rng):
    train, test = blobs(rng, 10, 2, 3, 1.0), blobs(rng, 5, 2, 3, 1.0)
    with pytest.raises(ValueError, match=r"\[1, 10\].*got 20"):
        knn.knn_accuracy(*train, *test)
    with pytest.raises(ValueError, match="temperature"):
        knn.knn_accuracy(*train, *test, k=3, temperature=0.0)
