import dataclasses
import importlib
import json
import pathlib

import pytest

from vrl_jax import config
from vrl_jax.data.videos import UCF101
from vrl_jax.methods.bod import BOD
from vrl_jax.train.optim import LARS

CONFIGS = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
    if path.stem != "__init__"
)


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_an_experiment_and_survives_json(name):
    experiment = config.build(load(name))
    assert isinstance(experiment, config.Experiment)
    assert config.build(json.loads(load(name).to_json())) == experiment
    assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__


def test_the_kinetics_recipe_is_the_stated_one():
    experiment = config.build(load("k400_bod"))
    assert isinstance(experiment.optim, LARS)
    rate = experiment.optim.schedule(512, 1000)
    assert float(rate(200)) == pytest.approx(4.8)
    assert (experiment.train.epochs, experiment.optim.warmup) == (100.0, 0.2)
    assert experiment.optim.weight_decay == 1e-6 and experiment.optim.trust == 0.001
    assert (experiment.sampling.frames, experiment.sampling.stride) == (16, 4)
    assert experiment.encoder.temporal_stride == 1 and experiment.method.dim == 128
    assert experiment.method.static_temperature == experiment.method.dynamic_temperature == 0.1


def test_overrides_reach_the_component():
    described = load("ucf101_bod")
    described.method.radius = 0.25
    described.data.split = 3
    experiment = config.build(described)
    assert experiment.method.radius == 0.25 and experiment.data == UCF101(split=3)


def change(tree, path, value):
    *parents, last = path.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("method.raduis", 0.1, r"config.method.raduis is unknown \(did you mean radius\?\)"),
        ("method.order", 8.5, "config.method.order must be int, got 8.5"),
        ("train.batch", True, "config.train.batch must be int, got True"),
        ("augment.flip", 1.5, r"config.augment: flip must lie in \[0, 1\], got 1.5"),
        ("optim.kind", "vrl_jax.train.optim:Adagrad", "no component 'vrl_jax.train.optim:Adagrad'"),
        ("method.split", "fourier", "config.method: split must be one of"),
    ],
)
def test_mistakes_are_named(path, value, message):
    tree = json.loads(load("synthetic_bod").to_json())
    change(tree, path, value)
    with pytest.raises(ValueError, match=message):
        config.build(tree)


def test_a_missing_component_is_named():
    tree = json.loads(load("synthetic_bod").to_json())
    del tree["encoder"]
    with pytest.raises(ValueError, match="config: .*'encoder'"):
        config.build(tree)


def test_defaults_stand_in_the_component_alone():
    described = config.describe(BOD())
    assert set(described) == {"kind", *(field.name for field in dataclasses.fields(BOD))}
    assert config.build(described) == BOD()
