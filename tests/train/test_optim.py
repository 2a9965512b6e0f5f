import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.train.optim import LARS, SGD, Adam, AdamW

PARAMS = {"kernel": np.float32([[3.0, 4.0]]), "bias": np.float32([2.0])}
GRADS = {"kernel": np.float32([[0.6, 0.0]]), "bias": np.float32([0.5])}


def first_update(optimizer, **settings):
    transform = optimizer(learning_rate=0.1, warmup=0.0, **settings).build(8, 100)
    updates, _ = transform.update(GRADS, transform.init(PARAMS), PARAMS)
    return updates


def test_schedule_warms_up_and_falls_along_a_half_cosine():
    rate = AdamW(learning_rate=0.4, reference_batch=512, warmup=0.2).schedule(128, 50)
    assert float(rate(0)) == 0
    np.testing.assert_allclose(rate(5), 0.05, rtol=1e-6)  # half of 0.4 * 128 / 512
    np.testing.assert_allclose(rate(10), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(30), 0.05, rtol=1e-5)
    np.testing.assert_allclose(rate(50), 0, atol=1e-8)


def test_a_cosine_falls_to_its_end():
    """The schedule of VideoMAE: linear warm-up, end + (peak - end) (1 + cos(pi i / n)) / 2."""
    optim = AdamW(1.0, reference_batch=256, warmup=0.2, start=0.01, end=0.1)
    rates = [float(optim.schedule(384, 50)(step)) for step in range(51)]
    start, peak, end = 0.015, 1.5, 0.15
    warm = [start + (peak - start) * step / 10 for step in range(10)]
    fall = [end + (peak - end) * (1 + np.cos(np.pi * i / 40)) / 2 for i in range(41)]
    np.testing.assert_allclose(rates, warm + fall, atol=1e-6)
    whole = AdamW(1.0, warmup=0.0, end=0.1, whole_cosine=True).schedule(8, 50)
    np.testing.assert_allclose([whole(25), whole(50)], [0.55, 0.1], atol=1e-6)
    with pytest.raises(ValueError, match=r"end=0.1 needs a cosine, drops=\(\), got \(0.5,\)"):
        SGD(end=0.1, drops=(0.5,))


def test_a_whole_cosine_is_met_by_the_warm_up():
    optim = AdamW(learning_rate=4.8, warmup=35 / 200, start=0.008, whole_cosine=True)
    rate = optim.schedule(8, 200)
    expected = [0.008, 4.8 * (1 + np.cos(35 / 200 * np.pi)) / 2, 2.4, 0.703, 0.0]
    np.testing.assert_allclose(
        [float(rate(k)) for k in (0, 35, 100, 150, 200)], expected, atol=1e-3
    )
    middle = (0.008 + expected[1]) / 2
    assert float(rate(17)) == pytest.approx(middle, rel=0.03)
    assert float(AdamW(warmup=0.0, whole_cosine=True).schedule(8, 10)(0)) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match=r"whole_cosine needs drops=\(\), got \(0.5,\)"):
        SGD(whole_cosine=True, drops=(0.5,))


def test_sgd_couples_decay_and_spares_biases():
    got = first_update(SGD, weight_decay=0.01, momentum=0.0, nesterov=False)
    np.testing.assert_allclose(got["kernel"], [[-0.1 * 0.63, -0.1 * 0.04]], rtol=1e-6)
    np.testing.assert_allclose(got["bias"], [-0.05], rtol=1e-6)


def test_adamw_decouples_decay_and_spares_biases():
    got = first_update(AdamW, weight_decay=0.01)
    np.testing.assert_allclose(got["kernel"], [[-0.1 * 1.03, -0.1 * 0.04]], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(got["bias"], [-0.1], rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_warm_up_leaves_a_last_step(steps):
    rate = AdamW(learning_rate=0.5, warmup=1.0).schedule(8, steps)
    assert float(rate(steps - 1)) == 0.5 and float(rate(steps)) == 0


def test_lars_scales_matrices_by_their_norm_and_leaves_biases():
    got = first_update(LARS, weight_decay=0.0, momentum=0.0, trust=0.02)
    np.testing.assert_allclose(got["kernel"], [[-0.1 * 0.6 * 0.02 * 5 / 0.6, 0]], rtol=1e-5)
    np.testing.assert_allclose(got["bias"], [-0.05], rtol=1e-6)


def test_lars_counts_decay_with_the_weights_norm():
    got = first_update(LARS, weight_decay=0.01, momentum=0.0, trust=0.02)
    scale = 0.1 * 0.02 * 5 / (0.6 + 0.01 * 5)
    np.testing.assert_allclose(got["kernel"], [[-scale * 0.63, -scale * 0.04]], rtol=1e-5)


def test_lars_leaves_alone_what_has_no_gradient_and_moves_what_is_zero():
    still, zero = jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))
    params, grads = {"still": still, "zero": zero}, {"still": zero, "zero": still}
    optimizer = LARS(learning_rate=0.1, warmup=0.0, weight_decay=0.01, momentum=0.0).build(8, 100)
    got, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_array_equal(got["still"], zero)
    np.testing.assert_allclose(got["zero"], -0.1 * still, rtol=1e-6)


def test_momentum_is_of_scaled_gradients_and_looks_ahead_as_pytorchs():
    for nesterov, lengths in ((False, (1.0, 1.9)), (True, (1.9, 2.71))):
        optimizer = LARS(
            learning_rate=0.1, warmup=0.0, weight_decay=0.0, nesterov=nesterov
        ).build(8, 10**6)  # fmt: skip
        params = {"bias": jnp.zeros(1)}
        state = optimizer.init(params)
        for length in lengths:
            updates, state = optimizer.update({"bias": jnp.ones(1)}, state, params)
            np.testing.assert_allclose(updates["bias"], [-0.1 * length], rtol=1e-5)


def test_clipping_bounds_the_global_norm():
    got = first_update(SGD, weight_decay=0.0, momentum=0.0, nesterov=False, clip_norm=0.1)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in got.values()))
    np.testing.assert_allclose(norm, 0.1 * 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer, settings",
    [
        (AdamW, {"learning_rate": 0.0}),
        (AdamW, {"warmup": 1.5}),
        (AdamW, {"clip_norm": -1.0}),
        (SGD, {"momentum": 2.0}),
        (LARS, {"trust": -1.0}),
    ],
)
def test_bad_settings_are_refused(optimizer, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        optimizer(**settings)


def test_the_rate_drops_to_a_tenth_where_it_is_told_to():
    rate = SGD(learning_rate=0.3, warmup=0.1, drops=(0.6, 0.8)).schedule(8, 100)
    got = [float(rate(step)) for step in (0, 5, 10, 59, 60, 79, 80, 99)]
    np.testing.assert_allclose(got, [0, 0.15, 0.3, 0.3, 0.03, 0.03, 0.003, 0.003], rtol=1e-5)
    none = SGD(learning_rate=0.3, warmup=0.0, drops=(0.5,)).schedule(8, 100)
    np.testing.assert_allclose([float(none(0)), float(none(50))], [0.3, 0.03], rtol=1e-5)
    with pytest.raises(ValueError, match=r"drops\[1\] must lie in \[0, 1\], got 1.5"):
        SGD(drops=(0.5, 1.5))
    with pytest.raises(ValueError, match=r"drops must come after the warm-up \(0.6\), got 0.5"):
        SGD(drops=(0.5, 0.8), warmup=0.6)


@pytest.mark.parametrize("everything", [False, True])
def test_decay_reaches_biases_only_where_told(everything):
    optimizer = SGD(
        learning_rate=1.0, warmup=0.0, weight_decay=0.1, momentum=0.0, nesterov=False,
        decay_all=everything,
    ).build(8, 10**6)  # fmt: skip
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    none = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(none, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], -0.1 if everything else 0.0, atol=1e-6)


def test_adam_has_its_decay_in_the_gradient():
    optimizer = Adam(learning_rate=0.01, warmup=0.0, weight_decay=0.5).build(8, 10**6)
    params = {"kernel": jnp.full((2, 2), 3.0)}
    updates, _ = optimizer.update({"kernel": jnp.zeros((2, 2))}, optimizer.init(params), params)
    # A first step of Adam has the rate's length whatever the gradient's: decay alone moves it.
    np.testing.assert_allclose(updates["kernel"], -0.01, rtol=1e-3)


def test_drops_that_fall_on_one_step_all_count():
    rate = SGD(learning_rate=0.3, warmup=0.0, drops=(0.7, 0.8), drop_factor=0.5).schedule(8, 5)
    assert [float(rate(step)) for step in (3, 4)] == pytest.approx([0.3, 0.075])
