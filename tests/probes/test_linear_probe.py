from dataclasses import replace

import numpy as np
import pytest

from vrl_jax.probes import linear_fit, linear_probe
from vrl_jax.probes.linear_probe import LinearProbe, fit_probe, hold_out, leave_one_group_out

QUICK = LinearProbe(steps=60)


def blobs(rng, n, classes=4, d=8, spread=1.0):
    labels = rng.integers(0, classes, n)
    means = np.random.default_rng(7).normal(size=(classes, d))
    data = means[labels] + spread * rng.normal(size=(n, d))
    return (data * np.arange(1, d + 1) + 3).astype(np.float32), labels  # unlike scales and offsets


@pytest.mark.parametrize("n, classes, d", [(100, 4, 8), (80, 3, 5)])
def test_reaches_the_optimum_that_scikit_learn_finds(rng, n, classes, d):
    sklearn = pytest.importorskip("sklearn.linear_model")
    train, test = blobs(rng, n, classes, d, 1.5), blobs(rng, 100, classes, d, 1.5)
    settings = LinearProbe(learning_rates=(0.05,), weight_decays=(0.03,), steps=600)
    got = fit_probe(*train, *test, num_classes=classes, settings=settings)
    mean, std = train[0].mean(axis=0), train[0].std(axis=0)
    model = sklearn.LogisticRegression(C=1 / (0.03 * n), tol=1e-8, max_iter=1000)
    model.fit((train[0] - mean) / std, train[1])
    expected = model.predict((test[0] - mean) / std)
    assert (got.predictions == expected).mean() > 0.99
    assert got.accuracy == pytest.approx((got.predictions == test[1]).mean())
    assert 0.5 < got.accuracy < 0.99


def test_a_first_step_as_by_loops(rng):
    """One step of Adam moves every weight by the rate, against the sign of its gradient."""
    (data, labels), rate = blobs(rng, 30), 0.01
    mask = np.arange(30) % 3 > 0
    rates, decays = np.float32([rate]), np.float32([0.5])
    heads = linear_fit.fit_heads(
        data, labels, mask, rates, decays, 4, linear_probe.CROSS_ENTROPY, LinearProbe(steps=1)
    )
    training = data[mask].astype(float)
    mean, std = training.mean(axis=0), training.std(axis=0)
    np.testing.assert_allclose(heads.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(heads.std, std, rtol=1e-4)
    gradient = np.zeros((8, 4))
    for feature, label in zip((training - mean) / std, labels[mask], strict=True):
        for c in range(4):
            gradient[:, c] += (0.25 - (label == c)) * feature / len(training)
    np.testing.assert_allclose(heads.weights[0], -rate * np.sign(gradient), rtol=1e-3)


def test_rows_outside_the_training_part_weigh_nothing(rng):
    data, labels = blobs(rng, 40)
    mask = np.arange(40) < 30
    other, swapped = data.copy(), labels.copy()
    other[30:] *= 100
    swapped[30:] = 0
    settings = replace(QUICK, batch=16)  # mini-batches too
    for s in (QUICK, settings):
        args = mask, np.float32([0.01]), np.float32([0.0]), 4, linear_probe.CROSS_ENTROPY, s
        first, second = (
            linear_fit.fit_heads(data, labels, *args),
            linear_fit.fit_heads(other, swapped, *args),
        )
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_mini_batches_learn_too(rng):
    train, test = blobs(rng, 100, spread=0.3), blobs(rng, 100, spread=0.3)
    got = fit_probe(*train, *test, num_classes=4, settings=replace(QUICK, batch=32))
    assert got.accuracy > 0.95


def test_the_choice_sees_neither_test_labels_nor_test_features(rng):
    train, (data, labels) = blobs(rng, 100, spread=2.0), blobs(rng, 100, spread=2.0)
    first = fit_probe(*train, data, labels, num_classes=4, settings=QUICK)
    second = fit_probe(*train, data, rng.permutation(labels), num_classes=4, settings=QUICK)
    third = fit_probe(*train, 50 * data[:7], labels[:7], num_classes=4, settings=QUICK)
    for other in (second, third):
        assert first[1:4] == other[1:4]
    np.testing.assert_array_equal(first.predictions, second.predictions)
    assert first.accuracy != second.accuracy


def test_the_setting_that_is_best_on_the_held_out_slice_is_refitted(rng):
    """With more dimensions than items and noise, only strong decay generalises."""
    train, test = blobs(rng, 200, spread=0.5), blobs(rng, 100, spread=0.5)
    settings = LinearProbe(learning_rates=(1e-7, 0.03), weight_decays=(0.0, 300.0), steps=100)
    got = fit_probe(*train, *test, num_classes=4, settings=settings)
    best = 0.0
    held_out = hold_out(train[1], np.ones(200, bool), None, settings)
    for rate in settings.learning_rates:
        for decay in settings.weight_decays:
            one = replace(settings, learning_rates=(rate,), weight_decays=(decay,))
            single = fit_probe(*train, *test, num_classes=4, settings=one)
            best = max(best, single.held_out_accuracy)
            if (rate, decay) == (got.learning_rate, got.weight_decay):
                np.testing.assert_array_equal(single.predictions, got.predictions)
                assert single.held_out_accuracy == got.held_out_accuracy
    assert got.held_out_accuracy == best
    assert got.held_out_accuracy * held_out.sum() == pytest.approx(
        round(got.held_out_accuracy * held_out.sum()), abs=1e-4
    )


def test_a_setting_that_diverges_is_never_chosen(rng):
    train, test = blobs(rng, 100, spread=0.3), blobs(rng, 100, spread=0.3)
    train[1][:] = np.where(rng.random(100) < 0.5, 0, train[1])  # class 0 is what NaNs argmax to
    settings = replace(QUICK, learning_rates=(1e38, 0.01), weight_decays=(0.0, 1e30))
    got = fit_probe(*train, *test, num_classes=4, settings=settings)
    assert (got.learning_rate, got.weight_decay) == (0.01, 0.0)
    with pytest.raises(ValueError, match="learning_rates"):
        fit_probe(*train, *test, num_classes=4, settings=replace(settings, learning_rates=(1e38,)))


def test_features_that_are_not_finite_are_refused(rng):
    train, test = blobs(rng, 100), blobs(rng, 100)
    test[0][3, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_probe(*train, *test, num_classes=4, settings=QUICK)


def test_shuffled_labels_give_chance(rng):
    (data, labels), test = blobs(rng, 100, spread=0.3), blobs(rng, 100, spread=0.3)
    assert fit_probe(data, labels, *test, num_classes=4, settings=QUICK).accuracy > 0.95
    shuffled = fit_probe(data, rng.permutation(labels), *test, num_classes=4, settings=QUICK)
    assert abs(shuffled.accuracy - 0.25) < 0.2 and abs(shuffled.held_out_accuracy - 0.25) < 0.2


def test_a_constant_dimension_is_harmless(rng):
    train, test = blobs(rng, 100, spread=0.3), blobs(rng, 100, spread=0.3)
    train[0][:, 2] = test[0][:, 2] = np.float32(1234.567)
    test[0][0, 2] += 0.001
    assert fit_probe(*train, *test, num_classes=4, settings=QUICK).accuracy > 0.95


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_held_out_slice_is_stratified_by_class(rng, share):
    labels = rng.permutation(np.repeat([0, 1, 2, 5], [40, 12, 8, 4]))
    train = rng.random(64) < 0.9
    held_out = hold_out(labels, train, None, replace(QUICK, held_out=share))
    assert not held_out[~train].any()
    for label in (0, 1, 2, 5):
        expected = share * (train & (labels == label)).sum()
        assert abs((held_out & (labels == label)).sum() - expected) <= 1
    other = hold_out(labels, train, None, replace(QUICK, held_out=share, seed=1))
    assert (held_out != other).any()


def test_the_held_out_slice_is_made_of_whole_groups(rng):
    groups = rng.integers(0, 10, 200) * 3
    labels, train = rng.integers(0, 4, 200), groups != 6
    held_out = hold_out(labels, train, groups, replace(QUICK, held_out=0.3))
    outside, inside = set(groups[train & ~held_out]), set(groups[held_out])
    assert not outside & inside and 6 not in inside and 2 <= len(inside) <= 3


def test_groups_keep_the_choice_honest(rng):
    """Features that only name the video look perfect unless whole videos are held out."""
    groups = np.repeat(np.arange(40), 5)
    labels = rng.integers(0, 4, 40)[groups]
    data = rng.normal(size=(40, 64))[groups].astype(np.float32)
    test = data, labels
    leaky = fit_probe(data, labels, *test, num_classes=4, settings=QUICK)
    honest = fit_probe(data, labels, *test, num_classes=4, settings=QUICK, groups=groups)
    assert leaky.held_out_accuracy > 0.9 and honest.held_out_accuracy < 0.6


def test_leave_one_group_out_is_a_probe_per_group(rng):
    data, labels = blobs(rng, 100, spread=1.5)
    groups = rng.integers(0, 3, 100) * 5 + 10
    got = leave_one_group_out(data, labels, groups, num_classes=4, settings=QUICK)
    accuracies = []
    for group in (10, 15, 20):
        test = groups == group
        accuracies.append((got.predictions[test] == labels[test]).mean())
        assert got.per_group[group] == pytest.approx(accuracies[-1])
    assert got.mean == pytest.approx(np.mean(accuracies))
    assert got.std == pytest.approx(np.std(accuracies))
    test = groups == 15
    train = data[~test], labels[~test]
    single = fit_probe(*train, data, labels, num_classes=4, settings=QUICK, groups=groups[~test])
    assert (got.predictions == single.predictions)[test].mean() > 0.95  # up to rounding


def test_refusals(rng):
    data, labels = blobs(rng, 20)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        fit_probe(data, np.full(20, 3), data, labels, num_classes=3, settings=QUICK)
    with pytest.raises(ValueError, match="held_out"):
        fit_probe(data[:1], labels[:1], data, labels, num_classes=4, settings=QUICK)
    with pytest.raises(ValueError, match="groups"):
        fit_probe(
            data, labels, data, labels, num_classes=4, settings=QUICK, groups=np.zeros(20, int)
        )
    with pytest.raises(ValueError, match="number of groups"):
        leave_one_group_out(data, labels, labels % 2, num_classes=4, settings=QUICK)
    for wrong in ({"held_out": 1.0}, {"steps": 0}, {"batch": 0}, {"weight_decays": (-1.0,)}):
        with pytest.raises(ValueError):
            replace(QUICK, **wrong)


def test_masked_items_alone_are_learned_from_and_nothing_is_compiled_anew(rng):
    x, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(3, size=60)
    test = rng.normal(size=(20, 5)).astype(np.float32)
    some = rng.random(60) < 0.7
    spoilt = np.where(some[:, None], x, np.nan)
    settings = LinearProbe(learning_rates=(0.1,), weight_decays=(0.01,), steps=40)
    options = {"num_classes": 3, "settings": settings}
    masked = linear_probe.fit_probe(spoilt, labels, test, labels[:20], mask=some, **options)
    plain = linear_probe.fit_probe(x[some], labels[some], test, labels[:20], **options)
    np.testing.assert_array_equal(masked.predictions, plain.predictions)
    compiled = linear_fit.fit_heads._cache_size()
    linear_probe.fit_probe(spoilt, labels, test, labels[:20], mask=some & (labels > -1), **options)
    fewer = some.copy()
    fewer[np.flatnonzero(some)[:5]] = False
    linear_probe.fit_probe(spoilt, labels, test, labels[:20], mask=fewer, **options)
    assert linear_fit.fit_heads._cache_size() == compiled
