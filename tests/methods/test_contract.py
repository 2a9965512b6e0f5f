"""Every method on every framework, listed from the packages, meets one contract."""

import dataclasses
import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vrl_jax.frameworks
import vrl_jax.methods
from tests.methods.by_hand import ByHand
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.instance import Instance
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_step import init_state, make_step
from vrl_jax.types import Slot, TrainLength

VIDEOS, CLIPS, FRAMES, SIDE = 16, 2, 6, 12
HORIZON = TrainLength(steps=100, steps_per_epoch=2)
ENCODER = Tiny(widths=(4, 6), strides=(2, 2))
AUGMENT = Augment(size=8, flip=0.0, hue=0.0)
# A large ridge, radius and floor: at the defaults rounding is seen in the fourth digit of these
# losses, since clips of noise hardly move, and what little they do is scaled up by the fit and by
# the filter's slope, order / (4 radius).
SMALL = {
    "ridge": 0.1,
    "radius": 0.3,
    "floor": 0.3,
    "dim": 5,
    "hidden": 16,
    "layers": 2,
    "queue": 64,
    "prototypes": 7,
    "segment_dim": 3,
    "levels": (-2, -1),
    "concepts": 10,
    "top": 4,
    "queue_epochs": 0.5,
    "freeze_epochs": 0.5,
    "local_epochs": 0.5,
    "momentum": 0.9,
    "held_out": 1,
    "forecast": "shared",
    "forecast_weight": 1.0,
    "ahead": 2,
    "grid": 2,
    "reversed_negatives": True,
}


def components(package, has) -> list[type]:
    """Return the config classes of a package: dataclasses of its modules with a method `has`."""
    folder = pathlib.Path(package.__path__[0])
    modules = [
        importlib.import_module(f"{package.__name__}.{file.stem}")
        for file in sorted(folder.glob("*.py"))
        if file.stem != "__init__"
    ]
    return [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        and dataclasses.is_dataclass(kind)
        and hasattr(kind, has)
    ]


METHODS = [*components(vrl_jax.methods, "build"), ByHand]
FRAMEWORKS = components(vrl_jax.frameworks, "head")


def small(kind: type, **changes):
    """Return a component with the sizes that make a test quick."""
    names = {field.name for field in dataclasses.fields(kind)}
    settings = {**SMALL, **changes}
    return kind(**{name: value for name, value in settings.items() if name in names})


def takes_negatives(framework) -> bool:
    """Tell whether a framework compares with negatives at all."""
    try:
        framework.build({"z": Slot(3, negatives=(2,))}, ((0, 1),), HORIZON)
    except ValueError:
        return False
    return True


def accepts(kind: type, framework: type | None) -> bool:
    """Return whether a method can be built with a framework, or with none."""
    framework = framework and small(framework)
    try:
        small(kind, reversed_negatives=False).build(ENCODER, framework, HORIZON)
    except ValueError as error:
        refusal = (
            "compares embeddings with a framework" if framework is None else "framework must be"
        )
        assert refusal in str(error)
        return False
    return True


ACCEPTED = [(m, f) for m in METHODS for f in (None, *FRAMEWORKS) if accepts(m, f)]


def combination(method: type, framework: type | None):
    """Return a parameter; variants of a method are slow, others but the baseline beyond SimCLR."""
    variant = any(issubclass(method, other) for other in METHODS if other is not method)
    beyond = method is not Instance and framework not in (None, SimCLR)
    marks = [pytest.mark.slow] if variant or beyond else []
    name = f"{method.__name__}-{framework.__name__ if framework else None}"
    return pytest.param((method, framework), id=name, marks=marks)


@pytest.fixture(scope="module", params=[combination(m, f) for m, f in ACCEPTED])
def method(request):
    kind, framework = request.param
    framework = framework and small(framework)
    negatives = framework is None or takes_negatives(framework)
    without = {} if negatives else {"reversed_negatives": False}
    return small(kind, **without).build(ENCODER, framework, HORIZON)


@pytest.fixture(scope="module")
def trainer(method):
    """Return functions (devices) -> (initial state, step): compiled once a module and mesh."""
    compiled = {}

    def make(count):
        if count not in compiled:
            devices = sharding.make_mesh(jax.devices()[:count])
            optimizer = SGD(learning_rate=0.05, warmup=0.0).build(VIDEOS, 100)
            clips = jax.ShapeDtypeStruct((VIDEOS, CLIPS, FRAMES, SIDE, SIDE, 3), jnp.uint8)
            state = init_state(method, optimizer, clips, AUGMENT, 0, devices)
            step = make_step(method, optimizer, AUGMENT, 0, devices)
            compiled[count] = jax.device_get(state), step, devices
        state, step, devices = compiled[count]
        return jax.device_put(state, sharding.replicated_sharding(devices)), step, devices

    return make


def batches(method, count):
    rng = np.random.default_rng(3)
    rows = VIDEOS * (1 + (method.inner.steps if method.inner else 0))
    return [
        rng.integers(0, 256, (rows, CLIPS, FRAMES, SIDE, SIDE, 3), np.uint8) for _ in range(count)
    ]


def run(trainer, method, count, steps):
    state, step, devices = trainer(count)
    history = []
    for rows in batches(method, steps):
        state, metrics = step(state, sharding.shard_rows(devices, rows))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history, step


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_all_are_found():
    assert {kind.__name__ for kind in METHODS} >= {"Instance", "BOD", "DualVar", "HDC", "SDC"}
    independent = {m for m, framework in ACCEPTED if framework is None}
    assert {kind.__name__ for kind in independent} == {"HDC", "SDC", "ByHand"}
    assert len(ACCEPTED) == len(independent) + (len(METHODS) - len(independent)) * len(FRAMEWORKS)
    assert {kind.__name__ for kind in FRAMEWORKS} >= {"SimCLR", "MoCo", "BYOL", "SwAV"}


def test_trains_without_a_second_trace_and_reports_finite_numbers(trainer, method):
    before, _, _ = trainer(1)
    before = jax.device_get(before)
    state, history, step = run(trainer, method, 1, 4)
    assert step._cache_size() == 1
    assert all(np.isfinite(value) for metrics in history for value in metrics.values())
    assert int(state.step) == 4
    first, last = (method.encoder(train.params, train.state) for train in (before, state))
    assert not equal(first["params"], last["params"])
    assert not equal(first["batch_stats"], last["batch_stats"])


def test_eight_devices_do_what_one_does(trainer, method):
    state, step, devices = trainer(1)
    *warm, last = batches(method, 3)  # so that queues are filled and statistics have moved
    for rows in warm:
        state, _ = step(state, sharding.shard_rows(devices, rows))
    state, results = jax.device_get(state), []
    for count in (1, 8):
        _, step, devices = trainer(count)
        placed = jax.device_put(state, sharding.replicated_sharding(devices))
        results.append(jax.device_get(step(placed, sharding.shard_rows(devices, last))))
    (one, metrics_one), (eight, metrics_eight) = results
    assert metrics_one["loss"] == pytest.approx(metrics_eight["loss"], rel=1e-4)
    for name in metrics_one:  # the fit's condition magnifies rounding in the diagnostics
        assert metrics_one[name] == pytest.approx(metrics_eight[name], rel=1e-2, abs=1e-5), name
    gap = jax.tree.map(lambda x, y: x - y, one.params, eight.params)
    size = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(one.params)))
    assert np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(gap))) <= 1e-4 * size


def test_a_restart_is_bitwise(trainer, method, tmp_path):
    whole, _, _ = run(trainer, method, 1, 4)
    state, step, devices = trainer(1)
    rows = batches(method, 4)
    for batch in rows[:2]:
        state, _ = step(state, sharding.shard_rows(devices, batch))
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        checkpoints.save(state, 0.0)
    fresh, step, _ = trainer(1)
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        state = checkpoints.restore(fresh)
    for batch in rows[2:]:
        state, _ = step(state, sharding.shard_rows(devices, batch))
    assert equal(whole, jax.device_get(state))


def test_teachers_and_statistics_get_no_gradient(method):
    clips = jax.random.normal(jax.random.key(0), (8, len(method.views), FRAMES, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    if "teacher" not in state.get("framework", {}):
        pytest.skip("no teacher here")
    _, (aux, _) = jax.jit(method.loss)(params, state, clips, jax.random.key(2), jnp.int32(0))
    params, state = method.update(params, state, aux, jnp.int32(0))  # fills the queues

    rest = jax.tree.structure(state)
    leaves = jax.tree.leaves(state)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def value(chosen):
        filled = list(leaves)
        for i, leaf in zip(floats, chosen, strict=True):
            filled[i] = leaf
        whole = jax.tree.unflatten(rest, filled)
        queue = jax.lax.stop_gradient(whole["framework"].get("queue", {}))
        whole["framework"] = {**whole["framework"], "queue": queue}
        return method.loss(params, whole, clips, jax.random.key(2), jnp.int32(1))[0]

    slopes = jax.jit(jax.grad(value))([leaves[i] for i in floats])
    assert all(not np.any(slope) for slope in slopes)


def test_noise_differs_from_step_to_step(trainer, method):
    state, step, devices = trainer(1)
    rows = batches(method, 1)[0]
    losses = []
    for number in (5, 6, 5):
        fresh = trainer(1)[0]._replace(
            step=jax.device_put(jnp.int32(number), sharding.replicated_sharding(devices))
        )
        # With an empty queue the loss has no negatives and is zero.
        if "pushed" in fresh.state.get("framework", {}):
            fresh, _ = step(fresh, sharding.shard_rows(devices, rows))
            fresh = fresh._replace(step=jnp.int32(number))
        losses.append(float(step(fresh, sharding.shard_rows(devices, rows))[1]["loss"]))
    assert losses[0] == losses[2] and losses[0] != losses[1]


def test_encodes_with_fixed_statistics(method):
    clips = jax.random.normal(jax.random.key(0), (4, len(method.views), FRAMES, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    together = method.encode(params, state, clips[:, 0])
    single = method.encode(params, state, clips[:1, 0])
    assert together.clip.shape == (4, ENCODER.dim)
    np.testing.assert_allclose(together.clip[:1], single.clip, rtol=1e-4, atol=1e-5)


def test_the_encoder_that_is_kept_is_the_one_that_encodes(method):
    clips = jax.random.normal(jax.random.key(0), (4, len(method.views), FRAMES, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    encoded = method.encode(params, state, clips[:, 0])
    reference = ENCODER.module().apply(method.encoder(params, state), clips[:, 0], False)
    np.testing.assert_allclose(encoded.clip, reference.clip, rtol=1e-5, atol=1e-6)


def test_operators_are_fitted_to_each_clip(method):
    if method.operators is None:
        pytest.skip("no operators here")
    clips = jax.random.normal(jax.random.key(0), (4, len(method.views), FRAMES, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    matrix, radius = jax.jit(method.operators)(params, state, clips[:, 0])
    assert matrix.ndim == 3 and len(matrix) == 4 and matrix.shape[1] == matrix.shape[2]
    assert np.isfinite(matrix).all() and radius > 0
    single, _ = method.operators(params, state, clips[1:2, 0])
    np.testing.assert_allclose(matrix[1:2], single, rtol=1e-3, atol=1e-4)
