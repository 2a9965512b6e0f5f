import dataclasses
import importlib
import json
import pathlib

import numpy as np
import pytest

from vrl_jax import config
from vrl_jax.data.datasets.benchmarks import UCF101
from vrl_jax.data.frame_sampling import random_clips
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import find_deviations
from vrl_jax.experiment import Experiment
from vrl_jax.methods.bod import BOD
from vrl_jax.train.optim import LARS, SGD

CONFIGS = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
    if path.stem != "__init__"
)


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_one_of_two_kinds_and_survives_json(name):
    experiment = config.build(load(name))
    kind = Evaluation if name.startswith("eval_") else Experiment
    assert isinstance(experiment, kind)
    if isinstance(experiment, Evaluation) and experiment.protocol.published:
        benchmark = experiment.benchmark_used
        assert name == f"eval_{benchmark}_{experiment.protocol.task}"
        assert experiment.protocol.published.endswith(f":{benchmark}")
        assert find_deviations(experiment.protocol, benchmark) == {}
    assert config.build(json.loads(load(name).to_json())) == experiment
    assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__


def test_the_quick_start_is_bod_with_a_filter_in_place_of_the_operator():
    """It is the experiment of `docs/results.md`: the residual config with the measured flags."""
    measured = load("synthetic_residual")
    measured.method.update(forecast_weight=3.0, unit=True, degree=2)
    assert config.build(load("synthetic_detrend")) == config.build(measured)
    assert load("folders_detrend").method == load("synthetic_detrend").method
    assert config.build(load("folders_detrend")).data == config.build(load("folders_bod")).data


def test_supervision_has_the_clips_and_the_length_of_pretraining_on_egogestar():
    supervised, run = (config.build(load(n)) for n in ("eval_egogestar_finetune", "egogestar"))
    protocol = supervised.protocol
    assert protocol.train.augment == run.augment and protocol.optim == run.optim
    assert protocol.test.sampling == protocol.train.sampling
    assert protocol.test.sampling == dataclasses.replace(run.sampling, clips=1)
    assert round(protocol.epochs * 72 / protocol.batch) == pytest.approx(run.train.steps, abs=2)


def test_the_kinetics_recipe_is_the_stated_one():
    experiment = config.build(load("k400_bod"))
    assert isinstance(experiment.optim, LARS)
    rate = experiment.optim.schedule(512, 1000)
    assert float(rate(200)) == pytest.approx(4.8 * (1 + np.cos(0.2 * np.pi)) / 2)
    head = experiment.framework.head(128)
    assert (head.layers, head.last_bias) == (2, False)  # of the released code
    assert (experiment.train.epochs, experiment.optim.warmup) == (100.0, 0.2)
    assert experiment.optim.weight_decay == 1e-6 and experiment.optim.trust == 0.001
    assert (experiment.sampling.frames, experiment.sampling.stride) == (16, 4)
    assert experiment.encoder.temporal_stride == 1 and experiment.method.dim == 128
    assert experiment.method.static_temperature == experiment.method.dynamic_temperature == 0.1


@pytest.mark.parametrize("name", ["simclr", "moco", "byol", "swav"])
def test_the_large_scale_study_s_recipes_are_the_stated_ones(name):
    """Every number of the table of arXiv 2104.14558, as its configurations have them."""
    got = config.build(load(f"k400_{name}"))
    assert got.encoder.blocks == (3, 4, 6, 3) and got.augment.size == 224
    assert (got.sampling.frames, got.sampling.stride, got.sampling.clips) == (8, 9, 2)
    assert (got.sampling.layout, got.sampling.fps) == ("independent", 30.0)
    clips = random_clips(np.random.default_rng(0), 300, 30.0, got.sampling)
    assert (clips - clips[:, :1]).tolist() == 2 * [[0, 9, 18, 27, 36, 45, 54, 63]]
    assert (got.train.batch, got.train.epochs) == (512, 200.0)
    optim = got.optim
    rate = optim.schedule(512, 2000)
    peak = 0.4 if name == "moco" else 4.8
    assert float(rate(0)) == pytest.approx(0.008, rel=1e-3)  # 0.001 on each of 8 nodes
    of_study = {350: 4.446, 1000: 2.400, 1500: 0.703}  # epochs 35, 100 and 150 of 200
    for step, value in of_study.items():
        assert float(rate(step)) == pytest.approx(value * peak / 4.8, abs=1e-3)
    assert float(optim.schedule(64, 2000)(1000)) == pytest.approx(peak / 16)  # a node of 8 GPUs
    assert optim.momentum == 0.9 and not optim.decay_all
    assert optim.weight_decay == (1e-4 if name == "moco" else 1e-6)
    assert optim.nesterov
    if name == "moco":
        assert type(optim) is SGD
    else:
        assert isinstance(optim, LARS) and optim.trust == 0.001
    augment = got.augment  # "aug+"
    assert augment.area == (0.2, 0.766) and augment.aspect == (0.75, 4 / 3)
    assert (augment.brightness, augment.contrast, augment.saturation) == (0.6, 0.6, 0.6)
    assert (augment.hue, augment.jitter, augment.flip) == (0.15, 0.8, 0.5)
    assert (augment.gray, augment.blur, augment.sigma) == (0.2, 0.5, (0.1, 2.0))
    assert augment.mean == (0.45,) * 3 and augment.std == (0.225,) * 3
    framework, method = got.framework, got.method
    assert (method.dim, method.clips) == (256 if name == "byol" else 128, 2)
    assert method.temperature == 0.1
    wanted = {
        "simclr": {
            "hidden": 2048, "layers": 3, "norm": True, "last_bias": True, "fan_in": True,
        },
        "moco": {
            "hidden": 2048, "layers": 3, "norm": False, "queue": 65536, "momentum": 0.994,
            "anneal": True, "sum_pairs": True, "fan_in": True,
        },
        "byol": {
            "hidden": 4096, "layers": 2, "predictor_layers": 2, "momentum": 0.996,
            "sum_pairs": True, "fan_in": True,
        },
        "swav": {
            "hidden": 2048, "layers": 3, "prototypes": 1000, "epsilon": 0.05, "iterations": 3,
            "freeze_epochs": 1.0, "fan_in": True,
        },
    }[name]  # fmt: skip
    assert dataclasses.asdict(framework) == wanted


def test_dualvar_and_sdc_recipes_are_the_stated_ones():
    got = config.build(load("k400_dualvar"))
    assert (got.train.batch, got.train.epochs) == (64, 200.0)
    rate = got.optim.schedule(64, 200)
    np.testing.assert_allclose(
        [float(rate(k)) for k in (0, 119, 120, 160)], [3e-3, 3e-3, 3e-4, 3e-5], rtol=1e-5
    )
    assert (got.optim.weight_decay, got.optim.decay_all, got.optim.nesterov) == (1e-4, True, False)
    assert (got.sampling.frames, got.sampling.stride) == (16, 4)
    assert (got.augment.size, got.resize, got.augment.crop) == (112, (128, 171), "plain")
    assert (got.augment.reverse, got.augment.jitter, got.augment.blur) == (0.5, 0.64, 0.5)
    method = got.method
    assert (method.segments, method.segment_dim, method.dim, method.weak) == (2, 64, 128, 0.2)
    assert (method.temperature, method.coherence_temperature) == (0.07, 0.07)
    assert (method.rank_temperature, method.rank_cap) == (0.05, 5.0)
    moco = config.build(load("ucf101_dualvar_moco"))
    assert (moco.framework.queue, moco.framework.momentum) == (16384, 0.999)
    assert not (moco.framework.anneal or moco.method.symmetric or moco.method.rank_cap)
    for name, concepts, epochs, drop in (("k400", 100, 100.0, 70), ("ucf101", 50, 300.0, 200)):
        got = config.build(load(f"{name}_sdc"))
        rate = got.optim.schedule(64, round(epochs))
        assert (got.method.concepts, got.train.epochs) == (concepts, epochs)
        np.testing.assert_allclose([float(rate(drop - 1)), float(rate(drop))], [1e-3, 1e-4])
        assert got.optim.weight_decay == 1e-5 and got.augment.size == 128


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
        ("resize", [32.5, 32], r"config.resize\[0\] must be int, got 32.5"),
        ("evaluate.ks", [1, "a"], r"config.evaluate.ks\[1\] must be int, got 'a'"),
        ("augment.area", ["a", 1.0], r"config.augment.area\[0\] must be float, got 'a'"),
        ("optim.learning_rate", float("inf"), "config.optim.learning_rate must be finite, got inf"),
        ("augment.area", [0.5, float("nan")], r"config.augment.area\[1\] must be finite, got nan"),
        ("method.grid", 1.5, "config.method.grid must be int, got 1.5"),
        ("train.batch", True, "config.train.batch must be int, got True"),
        ("augment.area", [0.5], r"config.augment.area must be 2 values, got \(0.5,\)"),
        ("augment.flip", 1.5, r"config.augment: flip must lie in \[0, 1\], got 1.5"),
        ("optim.kind", "vrl_jax.train.optim:Adagrad", "no component 'vrl_jax.train.optim:Adagrad'"),
        ("method.pooling", "max", "config.method: pooling must be one of"),
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
