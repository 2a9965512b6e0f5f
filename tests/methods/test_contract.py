"""Every method on every framework, listed from the packages, meets one contract."""

import dataclasses
import functools
import importlib
import inspect
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vrl_jax.frameworks
import vrl_jax.methods
from tests.methods.by_hand import ByHand
from tests.methods.drawn import normal
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.bod import BOD
from vrl_jax.methods.instance import Instance
from vrl_jax.methods.sdc import SDC
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_step import init_state, make_step
from vrl_jax.types import Slot, TrainLength

VIDEOS, CLIPS, FRAMES, SIDE = 16, 2, 6, 12
HORIZON = TrainLength(steps=100, steps_per_epoch=2)
ENCODER = Tiny(widths=(4, 6), strides=(2, 2), conv="native")  # compiles faster than "per_tap"
AUGMENT = Augment(size=8, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0)
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
OPTIMIZER = SGD(learning_rate=0.05, warmup=0.0).build(VIDEOS, 100)


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
# Every method and every framework, for what one of the two breaks by itself.
EVERY_ONE = [(m, f) for m, f in ACCEPTED if m is Instance or f in (None, SimCLR)]


def combination(pair, slow: bool = False):
    """Return a parameter, slow for variants, beyond SimCLR except for the baseline, and for SDC."""
    method, framework = pair
    variant = any(issubclass(method, other) for other in METHODS if other is not method)
    beyond = method is not Instance and framework not in (None, SimCLR)
    marks = [pytest.mark.slow] if variant or beyond or method is SDC or slow else []
    name = f"{method.__name__}-{framework.__name__ if framework else None}"
    return pytest.param(pair, id=name, marks=marks)


@pytest.fixture(scope="module", params=[combination(pair) for pair in ACCEPTED])
def method(request):
    kind, framework = request.param
    framework = framework and small(framework)
    negatives = framework is None or takes_negatives(framework)
    without = {} if negatives else {"reversed_negatives": False}
    return small(kind, **without).build(ENCODER, framework, HORIZON)


def mesh(count):
    return sharding.make_mesh(jax.devices()[:count])


def place(tree, count):
    """Return a tree on the first `count` devices, replicated."""
    return jax.device_put(tree, sharding.replicated_sharding(mesh(count)))


@pytest.fixture(scope="module")
def start(method):
    """The state before the first step, on the host."""
    clips = jax.ShapeDtypeStruct((VIDEOS, CLIPS, FRAMES, SIDE, SIDE, 3), jnp.uint8)
    return jax.device_get(init_state(method, OPTIMIZER, clips, AUGMENT, 0, mesh(1)))


@pytest.fixture(scope="module")
def step(method):
    """A function (number of devices) -> step, compiled once a module."""
    return functools.cache(lambda count: make_step(method, OPTIMIZER, AUGMENT, 0, mesh(count)))


def run(step, state, batches, count=1):
    """Return the state on the host after a step on each batch, and the metrics of the steps."""
    state, history = place(state, count), []
    for rows in batches:
        state, metrics = step(count)(state, sharding.shard_rows(mesh(count), rows))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


@pytest.fixture(scope="module")
def batches(method):
    rows = (VIDEOS * method.levels, CLIPS, FRAMES, SIDE, SIDE, 3)
    return np.random.default_rng(3).integers(0, 256, (5, *rows), np.uint8)


@pytest.fixture(scope="module")
def trained(step, start, batches):
    """The state after four steps, when queues are filled and statistics have moved, and metrics."""
    return run(step, start, batches[:4])


@jax.jit
def encode_alone(variables, clips):
    return ENCODER.module().apply(variables, clips, False)


def test_all_are_found():
    assert {kind.__name__ for kind in METHODS} >= {"Instance", "BOD", "DualVar", "HDC", "SDC"}
    independent = {m for m, framework in ACCEPTED if framework is None}
    assert {kind.__name__ for kind in independent} == {"HDC", "SDC", "SharedForecast", "ByHand"}
    assert len(ACCEPTED) == len(independent) + (len(METHODS) - len(independent)) * len(FRAMEWORKS)
    assert {kind.__name__ for kind in FRAMEWORKS} >= {"SimCLR", "MoCo", "BYOL", "SwAV"}


def test_trains_without_a_second_trace_and_reports_finite_numbers(method, start, step, trained):
    state, history = trained
    assert step(1)._cache_size() == 1
    assert all(np.isfinite(value) for metrics in history for value in metrics.values())
    assert state.step == 4
    first, last = (method.encoder(train.params, train.state) for train in (start, state))
    for name in ("params", "batch_stats"):
        assert not jax.tree.all(jax.tree.map(np.array_equal, first[name], last[name]))


@pytest.mark.parametrize(
    "method",
    [combination(pair, slow=pair[0] not in (Instance, BOD)) for pair in EVERY_ONE],
    indirect=True,
)
def test_eight_devices_do_what_one_does(step, trained, batches):
    (one, (metrics_one,)), (eight, (metrics_eight,)) = (
        run(step, trained[0], batches[4:], count) for count in (1, 8)
    )
    assert metrics_one["loss"] == pytest.approx(metrics_eight["loss"], rel=1e-4)
    for name in metrics_one:  # the fit's condition magnifies rounding in the diagnostics
        assert metrics_one[name] == pytest.approx(metrics_eight[name], rel=1e-2, abs=1e-5), name
    gap = jax.tree.map(lambda x, y: x - y, one.params, eight.params)
    size = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(one.params)))
    assert np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(gap))) <= 1e-4 * size


def test_a_restart_is_bitwise(step, start, trained, batches, tmp_path):
    state, _ = run(step, start, batches[:2])
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        checkpoints.save(place(state, 1), 0.0)
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        state = checkpoints.restore(place(start, 1))
    state, _ = run(step, state, batches[2:4])
    chex.assert_trees_all_equal(trained[0], state)


def test_teachers_and_statistics_get_no_gradient(method, trained):
    params, state = trained[0].params, trained[0].state
    if "teacher" not in state.get("framework", {}):
        pytest.skip("no teacher here")
    clips = normal(8, len(method.views), FRAMES, 8, 8, 3)
    leaves, rest = jax.tree.flatten(state)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    @jax.jit
    @jax.grad
    def slope(chosen, clips):
        filled = list(leaves)
        for i, leaf in zip(floats, chosen, strict=True):
            filled[i] = leaf
        whole = jax.tree.unflatten(rest, filled)
        queue = jax.lax.stop_gradient(whole["framework"].get("queue", {}))
        whole["framework"] = {**whole["framework"], "queue": queue}
        return method.loss(params, whole, clips, jax.random.key(2), jnp.int32(1))[0]

    slopes = slope([leaves[i] for i in floats], clips)
    assert all(not np.any(x) for x in slopes)


def test_noise_differs_from_step_to_step(step, trained, batches):
    first, other, again = (
        run(step, trained[0]._replace(step=np.int32(number)), batches[:1])[1][0]["loss"]
        for number in (5, 6, 5)
    )
    assert first == again and first != other


def test_encodes_with_fixed_statistics_and_the_encoder_that_is_kept(method, trained):
    encode = jax.jit(method.encode)
    params, state = trained[0].params, trained[0].state
    clips = normal(4, FRAMES, 8, 8, 3)
    encoded = jax.device_get(encode(params, state, clips))
    assert encoded.clip.shape == (4, ENCODER.dim)
    others = np.concatenate([clips[:1], 3 * clips[1:] + 1])
    beside_others = jax.device_get(encode(params, state, others))
    np.testing.assert_allclose(encoded.clip[0], beside_others.clip[0], rtol=1e-4, atol=1e-5)
    reference = encode_alone(method.encoder(params, state), clips)
    np.testing.assert_allclose(encoded.clip, reference.clip, rtol=1e-5, atol=1e-6)


def test_parts_are_those_of_each_clip(method, trained):
    if method.parts is None:
        pytest.skip("no parts here")
    parts = jax.jit(method.parts)
    params, state = trained[0].params, trained[0].state
    clips = normal(4, FRAMES, 8, 8, 3)
    others = np.concatenate([clips[:1], clips[:0:-1]])
    alone, beside_others = (jax.device_get(parts(params, state, x)) for x in (clips, others))
    assert {"static", "dynamic"} <= alone.keys()
    for name, rows in alone.items():
        assert rows.shape == (4, rows.size // 4) and np.isfinite(rows).all()
        assert not np.allclose(rows[1:], rows[:1]), name
        np.testing.assert_allclose(rows[0], beside_others[name][0], rtol=1e-3, atol=1e-4)


def test_operators_are_fitted_to_each_clip(method, trained):
    if method.operators is None:
        pytest.skip("no operators here")
    operators = jax.jit(method.operators)
    params, state = trained[0].params, trained[0].state
    clips = normal(4, FRAMES, 8, 8, 3)
    matrix, radius = jax.device_get(operators(params, state, clips))
    assert matrix.ndim == 3 and len(matrix) == 4 and matrix.shape[1] == matrix.shape[2]
    assert np.isfinite(matrix).all() and radius > 0
    others = np.concatenate([clips[:1], clips[:0:-1]])
    beside_others = jax.device_get(operators(params, state, others).matrix)
    np.testing.assert_allclose(matrix[0], beside_others[0], rtol=1e-3, atol=1e-4)
