"""The attentive probe of a layer: cells, what it reads, what it leaves out."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.probes.attentive_probe import AttentiveProbe, average_to_grid, fit_attentive

QUICK = AttentiveProbe(steps=100, batch=32, width=16, heads=2, learning_rate=1e-2)


def test_cells_are_means_of_positions(rng):
    features = jnp.asarray(rng.normal(size=(2, 4, 3, 5, 6)), jnp.float32)
    cells = np.asarray(average_to_grid(features, (2, 2, 9)))
    assert cells.shape == (2, 2, 2 * 5, 6)
    cells = cells.reshape(2, 2, 2, 5, 6)
    for time in range(2):
        for row, part in enumerate((slice(0, 2), slice(1, 3))):  # three rows in two cells share one
            expected = features[:, 2 * time : 2 * time + 2, part].mean((1, 2))
            np.testing.assert_allclose(cells[:, time, row], expected, rtol=1e-5, atol=1e-6)
    whole = np.asarray(average_to_grid(features, (1, 1, 1)))[:, 0, 0]
    np.testing.assert_allclose(whole, features.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    same = np.asarray(average_to_grid(features, (4, 3, 5))).reshape(features.shape)
    np.testing.assert_array_equal(same, features)


def planted(rng, count):
    """Return tokens f32[n 4 2 3] and labels: the time of a large token, none in the mean."""
    labels = rng.integers(0, 2, count)
    tokens = rng.normal(size=(count, 4, 2, 3), scale=0.3).astype(np.float32)
    tokens[np.arange(count), np.where(labels, 0, 3), 0, 0] += 3
    return tokens, labels


def test_it_reads_time_that_a_mean_over_time_loses(rng):
    (train, train_labels), (test, labels) = planted(rng, 96), planted(rng, 48)
    mask = np.ones(96, bool)
    predictions = fit_attentive(train, train_labels, test, num_classes=2, settings=QUICK, mask=mask)
    assert (predictions == labels).mean() > 0.95
    mean = fit_attentive(
        train.mean((1, 2), keepdims=True),
        train_labels,
        test.mean((1, 2), keepdims=True),
        num_classes=2,
        settings=QUICK,
        mask=mask,
    )
    assert (mean == labels).mean() < 0.75


def test_items_outside_the_mask_and_the_scale_of_channels_do_not_matter(rng):
    (train, train_labels), (test, _) = planted(rng, 40), planted(rng, 16)
    mask = np.arange(40) < 32
    fit = partial(fit_attentive, num_classes=2, settings=QUICK, mask=mask)
    expected = fit(train, train_labels, test)
    spoilt, other = train.copy(), np.where(mask, train_labels, 1 - train_labels)
    spoilt[~mask] = np.nan
    np.testing.assert_array_equal(fit(spoilt, other, test), expected)
    scaled = fit(train * np.float32(64), train_labels, test * np.float32(64))
    np.testing.assert_array_equal(scaled, expected)


def test_wrong_settings_and_divergence_are_errors(rng):
    for wrong, message in (
        ({"heads": 3}, "heads must divide the width 64, got 3"),
        ({"grid": (8, 0, 2)}, "grid"),
        ({"steps": -1}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ):
        with pytest.raises(ValueError, match=message):
            AttentiveProbe(**wrong)
    tokens, labels = planted(rng, 8)
    settings = replace(QUICK, steps=2)
    tokens[3] = np.inf
    with pytest.raises(ValueError, match="the attentive probe diverged"):
        fit_attentive(
            tokens, labels, tokens, num_classes=2, settings=settings, mask=np.ones(8, bool)
        )
