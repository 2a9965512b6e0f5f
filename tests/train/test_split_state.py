"""A state that is split over eight devices trains as a replicated one, in an eighth of the memory.

One program trains with all frameworks at once, since every program takes seconds to compile.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import synthetic_bod
from tests.train.test_train_step import quadratic, take
from vrl_jax import config, preflight
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT
from vrl_jax.frameworks import BYOL, MoCo, SimCLR, SwAV
from vrl_jax.methods.base import Method
from vrl_jax.methods.instance import Instance
from vrl_jax.profiling.step_report import tree_bytes
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import SGD, AdamW
from vrl_jax.train.train_step import TrainState, init_state, make_step
from vrl_jax.types import TrainLength

CLIPS = jax.ShapeDtypeStruct((8, 2, 4, 8, 8, 3), jnp.uint8)
AUGMENT = Augment(size=8, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0)
ENCODER = Tiny(widths=(16,), strides=(2,), conv="native")
FRAMEWORKS = {
    "simclr": SimCLR(layers=1),
    "moco": MoCo(layers=1, queue=32, momentum=0.9),
    "byol": BYOL(layers=1, predictor_layers=1, momentum=0.9),
    "swav": SwAV(layers=1, prototypes=24, freeze_epochs=0.0),
}
OPTIMIZER = SGD(learning_rate=0.5, warmup=0.0, clip_norm=1.0).build(8, 100)


def join(methods: dict[str, Method]) -> Method:
    """Return the method that trains several ones, each with parameters of its own."""

    def init(key, clips):
        pairs = {name: method.init(key, clips) for name, method in methods.items()}
        return {name: pair[0] for name, pair in pairs.items()}, {
            name: pair[1] for name, pair in pairs.items()
        }

    def loss(params, state, clips, key, step):
        results = {
            name: method.loss(params[name], state[name], clips, key, step)
            for name, method in methods.items()
        }
        total = sum(value for value, _ in results.values())
        metrics = {f"loss/{name}": value for name, (value, _) in results.items()}
        return total, ({name: aux for name, (_, (aux, _)) in results.items()}, metrics)

    def update(params, state, aux, step):
        pairs = {
            name: method.update(params[name], state[name], aux[name], step)
            for name, method in methods.items()
        }
        return {name: pair[0] for name, pair in pairs.items()}, {
            name: pair[1] for name, pair in pairs.items()
        }

    views = next(iter(methods.values())).views
    return Method(views, init, loss, update, encode=None, encoder=None)


METHOD = join(
    {
        name: Instance(dim=8).build(ENCODER, framework, TrainLength(100, 10))
        for name, framework in FRAMEWORKS.items()
    }
)


@pytest.fixture(scope="module")
def layout():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "MIN_SHARDED", 8)
        mesh = sharding.make_mesh()
        shapes = jax.eval_shape(lambda: init_state(METHOD, OPTIMIZER, CLIPS, AUGMENT, 0, mesh))
        return sharding.state_sharding(mesh, shapes)


@pytest.fixture(scope="module")
def trained(layout):
    """First and last state, metrics and program of three steps, split and replicated."""
    mesh, results = sharding.make_mesh(), {}
    pixels = np.random.default_rng(0).integers(0, 256, (3, *CLIPS.shape), np.uint8)
    for name, given in {"split": layout, "replicated": None}.items():
        state = init_state(METHOD, OPTIMIZER, CLIPS, AUGMENT, 0, mesh, layout=given)
        start = jax.device_get(state)  # the step donates the state
        step = make_step(METHOD, OPTIMIZER, AUGMENT, 0, mesh, layout=given)
        rows = [sharding.shard_rows(mesh, row) for row in pixels]
        compiled, history = step.lower(state, rows[0]).compile(), []
        for row in rows:
            state, metrics = compiled(state, row)
            history.append({key: float(value) for key, value in metrics.items()})
        results[name] = start, state, history, compiled
    return results


def test_it_trains_as_a_replicated_one(trained):
    (_, split, metrics, _), (start, whole, expected, _) = trained.values()
    for ours, theirs in zip(metrics, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for name in FRAMEWORKS:
        ours, theirs, before = (
            jax.device_get((state.params[name], state.state[name]))
            for state in (split, whole, start)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs
        )
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), theirs[0], before[0])
        assert min(jax.tree.leaves(moved["network"]["encoder"])) > 1e-3


def test_a_device_holds_an_eighth(trained, layout):
    _, state, _, compiled = trained["split"]
    clips = np.prod(CLIPS.shape) / 8
    arguments = compiled.memory_analysis().argument_size_in_bytes
    assert arguments == sharding.device_bytes(state) + clips
    whole = trained["replicated"][-1].memory_analysis().argument_size_in_bytes
    assert (arguments - clips) / (whole - clips) < 0.3
    assert jax.tree.map(lambda x: x.sharding, state) == layout


def test_checkpoints_restore_across_layouts(trained, layout, tmp_path):
    state, split = (
        TrainState(train.step, train.params["simclr"], {}, {})
        for train in (trained["split"][1], layout)
    )
    one, eight = (
        jax.tree.broadcast(sharding.replicated_sharding(sharding.make_mesh(devices)), split)
        for devices in (jax.devices()[:1], jax.devices())
    )
    for number, (source, target) in enumerate([(split, one), (one, split), (eight, split)]):
        with Checkpoints(tmp_path / str(number), 1, {}) as checkpoints:
            checkpoints.save(jax.device_put(state, source), 0.0)
            checkpoints.wait()
            restored = checkpoints.restore(jax.device_put(state, target))
        assert jax.tree.map(lambda x: x.sharding, restored) == target
        jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_both_levels_of_a_split_state(monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 1)
    alone, _ = take(quadratic("maml1", 2))
    split, _ = take(quadratic("maml1", 2), split=2)
    assert {shard.data.shape for shard in split.params.addressable_shards} == {(1,)}
    np.testing.assert_allclose(split.params, alone.params, rtol=1e-6)


def test_the_longest_axis_that_divides_is_split(monkeypatch):
    mesh = sharding.make_mesh()

    def axes(*shape):
        return tuple(sharding.state_sharding(mesh, jax.ShapeDtypeStruct(shape, jnp.float32)).spec)

    assert axes(1024, 3072) == (None, "data")
    assert axes(3072, 1024) == axes(1024, 1024) == ("data",)
    assert axes(3, 3, 3, 257, 512) == (None, None, None, None, "data")
    assert axes(1001, 1003) == axes(128) == axes(127, 128) == axes() == ()
    assert axes(128, 128) == ("data",)


def test_a_large_transformer_leaves_an_eighth_on_each_of_eight_devices():
    encoder, mesh = ViT(width=1024, depth=24, heads=16), sharding.make_mesh()
    method = Instance().build(encoder, BYOL(), TrainLength(100, 10))
    augment = dataclasses.replace(AUGMENT, size=16)
    shapes = jax.eval_shape(
        lambda: init_state(method, AdamW().build(8, 100), CLIPS, augment, 0, mesh)
    )
    placed = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        sharding.state_sharding(mesh, shapes),
    )
    assert tree_bytes(shapes) > 4 * 4 * 300e6  # parameters, two moments, teacher
    assert sharding.device_bytes(placed) / tree_bytes(shapes) < 0.13


def test_a_run_may_be_resumed_with_another_layout():
    described = synthetic_bod.get_config()
    before = config.run_identity(config.build(described))
    described.train.shard_state = True
    assert config.run_identity(config.build(described)) == before


@pytest.mark.slow
def test_a_compiled_transformer_takes_an_eighth_of_the_arguments():
    described = synthetic_bod.get_config()
    described.method, described.framework = config.describe(Instance()), config.describe(BYOL())
    described.encoder = config.describe(ViT(width=128, depth=4, heads=2, patch=8))
    described.train.batch = described.evaluate.batch = 8
    whole, split = (
        preflight.compile_step(
            dataclasses.replace(
                experiment, train=dataclasses.replace(experiment.train, shard_state=shard_state)
            ),
            sharding.make_mesh(),
            videos=8,
            chip=None,
        )
        for experiment in [config.build(described)]
        for shard_state in (False, True)
    )
    clips = split.memory.arguments + split.memory.code - split.state
    assert clips == whole.memory.arguments + whole.memory.code - whole.state > 0
    assert (split.memory.arguments - clips) / (whole.memory.arguments - clips) < 0.15
