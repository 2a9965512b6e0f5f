import numpy as np
import pytest
import sklearn.metrics

from vrl_jax.probes import multilabel_probe
from vrl_jax.probes.linear_probe import LinearProbe


def items(rng, n, d=6, c=3):
    features = rng.normal(size=(n, d)) * np.arange(1, d + 1) + 3
    weights = np.random.default_rng(7).normal(size=(d, c)) / np.arange(1, d + 1)[:, None]
    labels = (features - 3) @ weights + 0.7 * rng.normal(size=(n, c)) > [0, 0.5, 1]
    return features.astype(np.float32), labels


def agree(labels):
    return lambda logits, held_out: float(((logits > 0) == labels[held_out]).mean())


def test_reaches_the_optimum_that_scikit_learn_finds(rng):
    sklearn = pytest.importorskip("sklearn.linear_model")
    (train, labels), (test, _) = items(rng, 150), items(rng, 80)
    settings = LinearProbe(learning_rates=(0.05,), weight_decays=(0.03,), steps=800)
    got = multilabel_probe.fit_multilabel_probe(
        train, labels, test, groups=np.arange(150) // 10, score=agree(labels), settings=settings
    )
    mean, std = train.mean(0), train.std(0)
    for c in range(3):
        model = sklearn.LogisticRegression(C=1 / (0.03 * 150), tol=1e-8, max_iter=1000)
        model.fit((train - mean) / std, labels[:, c])
        expected = model.predict_proba((test - mean) / std)[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-got.logits[:, c])), expected, atol=2e-3)
        assert expected.std() > 0.1
    assert (got.learning_rate, got.weight_decay) == (0.05, 0.03)


def test_the_setting_is_the_best_on_whole_held_out_groups(rng):
    (train, labels), groups, masks = items(rng, 60), np.arange(60) % 6, []

    def score(logits, held_out):
        masks.append(held_out)
        return -abs(np.std(1 / (1 + np.exp(-logits))) - 0.2) + 1  # some one setting comes closest

    settings = LinearProbe(steps=40)
    got = multilabel_probe.fit_multilabel_probe(
        train, labels, train, groups=groups, score=score, settings=settings
    )
    assert len(masks) == 9 and all((held_out == masks[0]).all() for held_out in masks)
    assert {len(set(groups[mask])) for mask in (masks[0], ~masks[0])} == {1, 5}
    grid = [(r, d) for r in settings.learning_rates for d in settings.weight_decays]
    single = {}
    for rate, decay in grid:
        one = LinearProbe((rate,), (decay,), steps=40)
        result = multilabel_probe.fit_multilabel_probe(
            train, labels, train, groups=groups, score=score, settings=one
        )
        single[rate, decay] = result
    best = max(grid, key=lambda setting: single[setting].held_out_score)
    assert (got.learning_rate, got.weight_decay) == best
    np.testing.assert_allclose(got.logits, single[best].logits, atol=1e-5)


def test_held_out_items_are_not_learned_from(rng):
    (train, labels), groups, calls = items(rng, 60), np.arange(60) % 6, []

    def score(logits, held_out):
        calls.append((logits, held_out))
        return 1.0

    options = dict(groups=groups, score=score, settings=LinearProbe((0.05,), (0.0,), steps=40))
    multilabel_probe.fit_multilabel_probe(train, labels, train, **options)
    flipped = np.where(calls[0][1][:, None], ~labels, labels)
    multilabel_probe.fit_multilabel_probe(train, flipped, train, **options)
    np.testing.assert_array_equal(calls[0][0], calls[1][0])
    assert calls[0][0].std() > 0.1


def test_the_surest_items_keep_their_order(rng):
    """Far beyond 17 the probabilities of all of them would be 1."""
    train = rng.normal(size=(40, 2)).astype(np.float32)
    test = np.array([[60, 0], [240, 0], [120, 0]], np.float32)
    labels = train[:, :1] > 0
    settings = LinearProbe((0.1,), (0.0,), steps=100)
    options = dict(groups=np.arange(40), score=agree(labels), settings=settings)
    got = multilabel_probe.fit_multilabel_probe(train, labels, test, **options)
    assert np.argsort(got.logits[:, 0]).tolist() == [0, 2, 1] and got.logits.min() > 20


def test_what_cannot_work_is_refused(rng):
    train, labels = items(rng, 20)
    options = dict(score=agree(labels), settings=LinearProbe(steps=2))
    with pytest.raises(ValueError, match="leaves one side of the split empty"):
        multilabel_probe.fit_multilabel_probe(
            train, labels, train, groups=np.zeros(20, int), **options
        )
    train[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        multilabel_probe.fit_multilabel_probe(train, labels, train, groups=np.arange(20), **options)


def test_average_precision_is_that_of_scikit_learn(rng):
    labels = rng.random((30, 5)) < [0.5, 0.1, 0.0, 1.0, 0.3]
    scores = rng.integers(0, 8, (30, 5)).astype(float)  # with ties
    present = labels.any(0)
    expected = sklearn.metrics.average_precision_score(labels[:, present], scores[:, present])
    got = multilabel_probe.mean_average_precision(scores, labels)
    assert got == pytest.approx(expected, abs=1e-12) and 0.2 < got < 0.9
    chance = multilabel_probe.chance_precision(labels)
    assert chance == pytest.approx(labels[:, present].mean())
    with pytest.raises(ValueError, match="items of at least one class"):
        multilabel_probe.mean_average_precision(scores, np.zeros_like(labels))
