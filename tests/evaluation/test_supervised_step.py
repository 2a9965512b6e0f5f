"""A classifier upon an encoder: its gradient by hand, what is frozen, what is noise."""

from dataclasses import replace

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.mixing import Mix, mix_views
from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.evaluation.supervised_step import (
    Classifier,
    init_classifier,
    make_supervised_step,
)
from vrl_jax.probes.classifier_heads import LinearHead
from vrl_jax.train import sharding
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_step import step_key
from vrl_jax.types import Features

PLAIN = Augment(
    size=2, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0, mean=(0.5,) * 3, std=(0.5,) * 3
)
DIM = 5


class Pixels(nn.Module):
    """Features that are a linear map of a clip's mean colour, behind a normalisation or none."""

    norm: bool = False

    @nn.compact
    def __call__(self, clips, train):
        x = clips.mean((1, 2, 3))
        if self.norm:
            x = nn.BatchNorm(not train, momentum=0.5)(x)
        x = nn.Dense(DIM, use_bias=False)(x)
        return Features(x, x[:, None], ())


def init(module, inputs):
    """Return initial variables, in NumPy."""
    init = jax.jit(module.init, static_argnums=2)
    return jax.device_get(init(jax.random.key(1), inputs, False))


def start(
    head,
    frozen,
    devices=1,
    norm=False,
    inputs=lambda features: features.clip,
    augment=PLAIN,
    **settings,
):
    """Return a classifier's state and step, without momentum, decay or schedule."""
    plain = {"warmup": 0.0, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    optimizer = SGD(**{"learning_rate": 0.5, **plain}).build(8, 10**9)
    place = sharding.make_mesh(jax.devices()[:devices])
    encoder = Pixels(norm)
    weights = init(encoder, jnp.ones((2, 1, 2, 2, 3)))
    classifier = Classifier(encoder, head, frozen, inputs)
    average = bool(settings.get("average"))
    state = init_classifier(classifier, optimizer, weights, (2, 1, 2, 2, 3), 0, place, average)
    step = make_supervised_step(classifier, optimizer, augment, 0, place, **settings)

    def take(state, clips, labels):
        batch = {
            "clips": sharding.shard_rows(place, clips),
            "labels": sharding.shard_rows(place, labels),
        }
        return step(state, batch)

    return classifier, weights, state, take


def batch(rng, n=8, classes=3, clips=1):
    clips = rng.integers(256, size=(n, clips, 2, 2, 2, 3), dtype=np.uint8)
    return clips, rng.integers(classes, size=n).astype(np.int32)


@pytest.mark.parametrize("frozen, rate", [(True, 1.0), (False, 1.0), (False, 0.1)])
def test_steps_are_those_of_gradient_descent_by_hand(rng, frozen, rate):
    clips, labels = batch(rng)
    _, weights, state, take = start(LinearHead(3), frozen, encoder_rate=rate)
    x = (clips.astype(np.float64).mean((1, 2, 3, 4)) / 255 - 0.5) / 0.5
    u = np.array(weights["params"]["Dense_0"]["kernel"], np.float64)
    w = np.array(state.params["head"]["Dense_0"]["kernel"], np.float64)
    b = np.zeros(3)
    assert 0.003 < w.std() < 0.03
    for _ in range(4):
        state, metrics = take(state, clips, labels)
        logits = x @ u @ w + b
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(
            metrics["loss"], -np.log(p[np.arange(8), labels]).mean(), rtol=1e-5
        )
        assert metrics["accuracy"] == (logits.argmax(1) == labels).mean()
        g = (p - np.eye(3)[labels]) / 8
        du, dw, db = x.T @ g @ w.T, (x @ u).T @ g, g.sum(0)
        w, b = w - 0.5 * dw, b - 0.5 * db
        if not frozen:
            u = u - 0.5 * rate * du
    np.testing.assert_allclose(state.params["head"]["Dense_0"]["kernel"], w, atol=1e-6)
    np.testing.assert_allclose(state.params["head"]["Dense_0"]["bias"], b, atol=1e-6)
    if frozen:
        np.testing.assert_array_equal(
            state.state["frozen"]["params"]["Dense_0"]["kernel"],
            weights["params"]["Dense_0"]["kernel"],
        )
    else:
        np.testing.assert_allclose(state.params["encoder"]["Dense_0"]["kernel"], u, atol=1e-6)


def test_a_linear_classifier_reaches_what_scikit_learn_finds(rng):
    clips, labels = batch(rng, 64)
    told = np.where(rng.random(64) < 0.6, labels, (labels + 1) % 3)  # or all could be told apart
    clips[..., 0] = clips[..., 0] // 3 + 70 * told[:, None, None, None, None].astype(np.uint8)
    classifier, weights, state, take = start(LinearHead(3), True)
    for _ in range(1500):
        state, _ = take(state, clips, labels)
    views = ((clips[:, 0] / 255.0 - 0.5) / 0.5).astype(np.float32)
    encode = jax.jit(lambda views: classifier.encoder.apply(weights, views, False).clip)
    features = np.asarray(encode(views))
    other = LogisticRegression(C=np.inf, max_iter=10_000).fit(features, labels)
    logits = np.asarray(jax.jit(classifier.score)(state.params, state.state, views))
    loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(64), labels]).mean()
    best = -np.log(other.predict_proba(features)[np.arange(64), labels]).mean()
    assert best - 1e-6 <= loss < best + 0.003 and 0.3 < best < 1.0


def test_statistics_of_a_frozen_encoder_stay_and_others_move(rng):
    clips, labels = batch(rng)
    for frozen in (True, False):
        _, weights, state, take = start(LinearHead(3), frozen, norm=True)
        after, _ = take(state, clips, labels)
        kept = after.state["frozen"]["batch_stats"] if frozen else after.state["encoder"]
        same = [
            np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(weights["batch_stats"]), jax.tree.leaves(kept), strict=True
            )
        ]
        assert all(same) if frozen else not any(same)


def test_dropout_hides_other_features_at_every_step_and_none_in_judging(rng):
    classifier, _, state, _ = start(LinearHead(3, dropout=0.5), True)
    views = rng.normal(size=(4, 2, 2, 2, 3)).astype(np.float32)
    train, score = jax.jit(classifier.train), jax.jit(classifier.score)
    trained = [
        np.asarray(train(state.params, state.state, views, jax.random.key(i))[0]) for i in range(2)
    ]
    judged = [np.asarray(score(state.params, state.state, views)) for _ in range(2)]
    assert not np.allclose(*trained) and np.array_equal(*judged)
    assert not np.allclose(trained[0], judged[0])


def test_a_normed_head_does_not_see_the_features_length_or_offset(rng):
    head = LinearHead(3, normed=True)
    x = rng.normal(size=(16, DIM)).astype(np.float32)
    weights = init(head, x)
    score = jax.jit(lambda x: head.apply(weights, x, True, mutable=["batch_stats"])[0])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    normal = (unit - unit.mean(0)) / np.sqrt(unit.var(0) + 1e-5)
    dense = weights["params"]["Dense_0"]
    np.testing.assert_allclose(score(x), normal @ dense["kernel"] + dense["bias"], atol=1e-5)
    np.testing.assert_allclose(
        score(x * rng.uniform(1, 9, (16, 1)).astype(np.float32)), score(x), atol=1e-5
    )


def test_each_clip_of_a_video_is_an_example_with_its_label(rng):
    clips, labels = batch(rng, clips=2)
    _, _, state, take = start(LinearHead(3), False)
    several, metrics = take(state, clips, labels)
    _, _, state, take = start(LinearHead(3), False)
    single, expected = take(state, clips.reshape(16, 1, *clips.shape[2:]), np.repeat(labels, 2))
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)
    chex.assert_trees_all_close(several, single, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_head_may_join_the_clips_of_a_video(rng, devices):
    clips, labels = batch(rng, clips=2)

    def join(features):  # the first clip's feature less the second's
        pairs = features.clip.reshape(-1, 2, DIM)
        return pairs[:, 0] - pairs[:, 1]

    classifier, weights, state, take = start(LinearHead(3), True, devices, inputs=join)
    params = jax.device_get(state.params)
    dense = params["head"]["Dense_0"]
    colours = (clips.astype(np.float64).mean((2, 3, 4)) / 255 - 0.5) / 0.5
    features = colours @ np.asarray(weights["params"]["Dense_0"]["kernel"], np.float64)
    logits = (features[:, 0] - features[:, 1]) @ dense["kernel"] + dense["bias"]
    chosen = logits[np.arange(8), labels] - np.log(np.exp(logits).sum(1))
    views = ((clips.reshape(-1, *clips.shape[2:]) / 255 - 0.5) / 0.5).astype(np.float32)
    score = jax.jit(classifier.score)
    np.testing.assert_allclose(score(params, state.state, views), logits, atol=1e-6)
    _, metrics = take(state, clips, labels)
    np.testing.assert_allclose(metrics["loss"], -chosen.mean(), rtol=1e-5)
    assert metrics["accuracy"] == (logits.argmax(1) == labels).mean()


def test_one_device_and_eight_take_the_same_step(rng):
    clips, labels = batch(rng)
    states = []
    for devices in (1, 8):
        _, _, state, take = start(LinearHead(3, normed=True), False, devices, norm=True)
        states.append(take(state, clips, labels)[0])
    chex.assert_trees_all_close(*states, atol=1e-6)


def test_micro_batches_take_the_step_of_the_whole_batch(rng):
    clips, labels = batch(rng, 16, clips=2)
    results = []
    for microbatch in (0, 8):
        _, _, state, take = start(LinearHead(3), False, 8, microbatch=microbatch)
        results.append(take(state, clips, labels))
    chex.assert_trees_all_close(*results, atol=1e-6)


def test_mixed_views_smoothed_labels_slower_layers_and_the_average_by_hand(rng):
    clips, labels = batch(rng)
    mix, rates = Mix(mixup=0.8, cutmix=1.0, group=4), {"Dense_0": 0.25}
    settings = {"mix": mix, "smoothing": 0.1, "layer_rates": rates, "average": 0.75}
    _, weights, state, take = start(LinearHead(3), False, **settings)
    u = np.array(weights["params"]["Dense_0"]["kernel"], np.float64)
    w = np.array(state.params["head"]["Dense_0"]["kernel"], np.float64)
    b, mean_u, mean_w = np.zeros(3), u, w
    pixels = ((clips[:, :1] / 255 - 0.5) / 0.5).astype(np.float32)

    @jax.jit
    def mixed(step, views):
        key = step_key(0, "mix", step)
        return mix_views(key, views, jnp.asarray(labels), mix, jnp.arange(8))

    smoothed, mixing = 0.9 * np.eye(3) + 0.1 / 3, []
    for number in range(3):
        views, share, others = jax.device_get(mixed(number, pixels))
        state, metrics = take(state, clips, labels)
        mixing.append(share.min() < 1)
        x = views.astype(np.float64).mean((1, 2, 3, 4))
        targets = share * smoothed[labels] + (1 - share) * smoothed[others[:, 0]]
        logits = x @ u @ w + b
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(metrics["loss"], -(targets * np.log(p)).sum(1).mean(), rtol=1e-5)
        assert metrics["accuracy"] == (logits.argmax(1) == targets.argmax(1)).mean()
        g = (p - targets) / 8
        du, dw, db = x.T @ g @ w.T, (x @ u).T @ g, g.sum(0)
        u, w, b = u - 0.5 * 0.25 * du, w - 0.5 * dw, b - 0.5 * db
        mean_u, mean_w = 0.75 * mean_u + 0.25 * u, 0.75 * mean_w + 0.25 * w
    assert any(mixing)
    average = state.state["average"]["params"]
    for params, expected in ((state.params, (u, w)), (average, (mean_u, mean_w))):
        np.testing.assert_allclose(params["encoder"]["Dense_0"]["kernel"], expected[0], atol=1e-6)
        np.testing.assert_allclose(params["head"]["Dense_0"]["kernel"], expected[1], atol=1e-6)


def test_the_average_of_statistics_moves(rng):
    clips, labels = batch(rng)
    _, weights, state, take = start(LinearHead(3), False, norm=True, average=0.75)
    state, _ = take(state, clips, labels)
    mean, now = (
        part["encoder"]["BatchNorm_0"]["mean"]
        for part in (state.state["average"]["state"], state.state)
    )
    np.testing.assert_allclose(mean, 0.25 * now, atol=1e-6)  # they start at 0
    assert np.abs(now).min() > 0


@pytest.mark.slow
def test_strong_augmentation_is_the_same_on_one_device_and_eight(rng):
    clips = rng.integers(256, size=(16, 1, 2, 6, 8, 3), dtype=np.uint8)
    labels = rng.integers(3, size=16).astype(np.int32)
    strong = StrongAugment(views=2, rand="rand-m7-n4-mstd0.5-inc1", erase=0.5)
    settings = {"strong": strong, "mix": Mix(mixup=0.8, cutmix=1.0, group=2), "average": 0.5}
    settings["microbatch"] = 8  # groups of 2 lie on two devices
    results = []
    for devices in (1, 8):
        augment = replace(PLAIN, size=4)
        _, _, state, take = start(LinearHead(3), False, devices, augment=augment, **settings)
        for _ in range(2):
            state, metrics = take(state, clips, labels)
        results.append(jax.device_get((state, metrics)))
    chex.assert_trees_all_close(*results, atol=1e-6)
