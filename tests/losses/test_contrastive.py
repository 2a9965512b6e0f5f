import doctest
import functools
import importlib
import inspect
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.jitted import jitted
from vrl_jax import losses
from vrl_jax.losses import contrastive, info_nce, nt_xent

nt_xent_of = jitted(nt_xent, "negatives")
nt_xent_steps = jitted(contrastive.nt_xent_steps)
info_nce_of = jitted(info_nce, "filled")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("n, d, temperature", [(2, 3, 0.1), (5, 8, 0.5)])
def test_nt_xent_agrees_with_loops(rng, n, d, temperature):
    a, b = rng.normal(size=(2, n, d)).astype(np.float32)
    z = unit(np.concatenate([a, b]).astype(np.float64))
    total = 0.0
    for i in range(2 * n):
        scores = [math.exp(z[i] @ z[j] / temperature) for j in range(2 * n) if j != i]
        total -= math.log(math.exp(z[i] @ z[(i + n) % (2 * n)] / temperature) / sum(scores))
    got = nt_xent_of(a, b, temperature=temperature)
    assert float(got) == pytest.approx(total / (2 * n), rel=1e-5)


@pytest.mark.parametrize("n, expected", [(2, 1.0986123), (4, 1.9459101), (64, 4.8441871)])
def test_nt_xent_of_equal_vectors_is_ln(n, expected):
    ones = np.ones((n, 3), np.float32)
    assert float(nt_xent_of(ones, ones)) == pytest.approx(expected, rel=1e-6)


def test_nt_xent_with_further_negatives_agrees_with_loops(rng):
    a, b, others = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    z, more = unit(np.concatenate([a, b])), unit(others)
    total = 0.0
    for i in range(8):
        wrong = sum(math.exp(z[i] @ z[j] / 0.2) for j in range(8) if j not in (i, (i + 4) % 8))
        wrong += sum(math.exp(z[i] @ other / 0.2) for other in more)
        right = math.exp(z[i] @ z[(i + 4) % 8] / 0.2)
        total -= math.log(right / (right + wrong))
    a, b, others = (x.astype(np.float32) for x in (a, b, others))
    got = nt_xent_of(a, b, temperature=0.2, negatives=others)
    assert float(got) == pytest.approx(total / 8, rel=1e-5)


def test_nt_xent_without_scaling_sees_lengths(rng):
    a, b = rng.normal(size=(2, 6, 4)).astype(np.float32)
    assert float(nt_xent_of(a, b)) == pytest.approx(float(nt_xent_of(9 * a, b)), rel=1e-4)
    plain = functools.partial(nt_xent_of, unit=False)
    assert abs(float(plain(a, b)) - float(plain(0 * a, b))) > 0.1
    assert float(plain(0 * a, 0 * b)) == pytest.approx(math.log(11), rel=1e-6)


@pytest.mark.parametrize("n, d, k", [(3, 4, 5), (6, 2, 1)])
def test_info_nce_with_a_queue_agrees_with_loops(rng, n, d, k):
    q, keys, queue = rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=(k, d))
    total = 0.0
    for i in range(n):
        right = math.exp(unit(q)[i] @ unit(keys)[i] / 0.2)
        wrong = sum(math.exp(unit(q)[i] @ unit(queue)[j] / 0.2) for j in range(k))
        total -= math.log(right / (right + wrong))
    arrays = (x.astype(np.float32) for x in (q, keys, queue))
    assert float(info_nce_of(*arrays, temperature=0.2)) == pytest.approx(total / n, rel=1e-5)


def test_info_nce_without_a_queue_uses_the_batch(rng):
    q, keys = (rng.normal(size=(4, 3)) for _ in range(2))
    total = 0.0
    for i in range(4):
        scores = [math.exp(unit(q)[i] @ unit(keys)[j] / 0.1) for j in range(4)]
        total -= math.log(scores[i] / sum(scores))
    got = info_nce_of(q.astype(np.float32), keys.astype(np.float32))
    assert float(got) == pytest.approx(total / 4, rel=1e-5)


def test_unfilled_rows_of_a_queue_do_not_count(rng):
    q, keys, queue = (rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 4, 6))
    of_queue = jitted(jax.value_and_grad(info_nce), "filled")
    part, _ = of_queue(q, keys, queue, filled=np.int32(2))
    assert float(part) == pytest.approx(float(info_nce_of(q, keys, queue[:2])), rel=1e-6)
    empty, slope = of_queue(q, keys, queue, filled=np.int32(0))
    assert float(empty) == 0 and np.isfinite(slope).all()


def test_empty_queue_scores_are_the_logarithm_of_its_length():
    zeros, queue = np.zeros((2, 8), np.float32), np.zeros((16384, 8), np.float32)
    got = info_nce_of(zeros, zeros, queue, temperature=0.07)
    assert float(got) == pytest.approx(9.7041216, rel=1e-6)


def test_negative_cosine(rng):
    p, z = rng.normal(size=(2, 5, 7)).astype(np.float32)
    expected = -np.mean(np.sum(unit(p) * unit(z), -1))
    value_and_slope = jax.jit(jax.value_and_grad(losses.negative_cosine))
    assert float(value_and_slope(p, z)[0]) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(value_and_slope(0 * p, z)[1]).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nt_xent(jnp.ones((2, 3)), jnp.ones((3, 3))), "same shape"),
        (
            lambda: nt_xent(jnp.ones((1, 3)), jnp.ones((1, 3))),
            "number of videos must be at least 2",
        ),
        (lambda: nt_xent(jnp.ones((2, 3)), jnp.ones((2, 3)), temperature=0.0), "temperature"),
        (
            lambda: info_nce(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones((4, 5))),
            "queue rows must have 3 entries, got 5",
        ),
        (
            lambda: nt_xent(jnp.ones((2, 3)), jnp.ones((2, 3)), negatives=jnp.ones((4, 5))),
            "negatives must have 3 entries, got 5",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    # The annotations refuse differing shapes first where they are checked.
    with pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check"):
        call()


MODULES = [
    importlib.import_module(f"vrl_jax.losses.{path.stem}")
    for path in sorted(pathlib.Path(losses.__path__[0]).glob("[a-z]*.py"))
]


def takes_arrays(function):
    parameters = inspect.signature(function).parameters.values()
    positional = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
    return all("Array" in str(each.annotation) for each in positional)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module):
    compiled = {
        name: jitted(function)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if ">>>" in (function.__doc__ or "") and takes_arrays(function)
    }
    failed, attempted = doctest.testmod(module, extraglobs={"jnp": jnp, "jax": jax, **compiled})
    assert attempted and not failed


@pytest.mark.parametrize("negatives", ["same_step", "all_steps"])
def test_nt_xent_steps_agrees_with_loops(rng, negatives):
    n, t = 4, 3
    z = unit(rng.normal(size=(2, n, t, 5)))
    total = 0.0
    for view, i, step in np.ndindex(2, n, t):
        anchor = z[view, i, step]
        right = math.exp(anchor @ z[1 - view, i, step] / 0.2)
        wrong = sum(
            math.exp(anchor @ z[w, j, s] / 0.2)
            for w, j, s in np.ndindex(2, n, t)
            if j != i and (negatives == "all_steps" or s == step)
        )
        total -= math.log(right / (right + wrong))
    got = nt_xent_steps(*z.astype(np.float32), temperature=0.2, negatives=negatives)
    assert float(got) == pytest.approx(total / (2 * n * t), rel=1e-5)


@pytest.mark.parametrize(
    "temperature, expected", [(0.1, 2.7236248e-04), (0.07, 3.7492427e-06), (0.5, 0.5944377)]
)
def test_orthogonal_videos_have_the_known_values(temperature, expected):
    x, rounding = np.eye(4, dtype=np.float32), 2e-7  # of a probability near 1
    expected = pytest.approx(expected, rel=1e-4, abs=rounding)
    assert float(nt_xent_of(x, x, temperature=temperature)) == expected
    steps = np.stack([x, x], axis=1)
    assert float(nt_xent_steps(steps, steps, temperature=temperature)) == expected


def test_nt_xent_steps_knows_time_and_its_own_video(rng):
    a, b = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    order = [2, 0, 1]
    base = float(nt_xent_steps(a, b))
    both = float(nt_xent_steps(a[:, order], b[:, order]))
    assert both == pytest.approx(base, rel=1e-5)
    assert abs(float(nt_xent_steps(a, b[:, order])) - base) > 0.1
    # Further steps equal to the anchor's, in the same video, are nobody's negatives.
    still = float(nt_xent_steps(a[:, [0, 0, 0]], b[:, [0, 0, 0]]))
    assert still == pytest.approx(float(nt_xent_of(a[:, 0], b[:, 0])), rel=1e-5)


def test_info_nce_within_the_batch_has_the_known_values():
    ones = np.ones((64, 3), np.float32)
    assert float(info_nce_of(ones, ones)) == pytest.approx(4.1588831)
    x = np.eye(4, dtype=np.float32)
    got = info_nce_of(x, x, temperature=0.07)
    assert float(got) == pytest.approx(1.8746231e-06, rel=0.1)  # two roundings off 1
