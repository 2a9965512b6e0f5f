"""The step of a config, compiled for devices that need not be there; and what is refused."""

import dataclasses
import json
import os
import subprocess

import jax
import pytest
from absl.testing import flagsaver

from configs import eval_factors, synthetic_bod
from tests.test_main import COLOURLESS, ENVIRONMENT, ROOT, command
from vrl_jax import config, preflight
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.profiling.device_specs import Chip
from vrl_jax.profiling.step_report import format_verdict
from vrl_jax.train.sharding import make_mesh

BATCH = 16
CHIP = Chip(memory=2.0**30, flops=1e12, bandwidth=1e11, links=1e10)


def experiment(**train):
    described = synthetic_bod.get_config()
    changes = {"encoder.widths": (4, 8), "encoder.strides": (4, 2), "framework.hidden": 16}
    changes |= {"method.dim": 8, "sampling.frames": 8, "train.batch": BATCH, "evaluate.batch": 8}
    changes |= COLOURLESS
    described.update_from_flattened_dict(changes)
    built = config.build(described)
    return dataclasses.replace(built, train=dataclasses.replace(built.train, **train))


@pytest.fixture(scope="module")
def report():
    return preflight.compile_step(experiment(), make_mesh(), 40, CHIP)


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_step_is_read_for_each_of_its_chips(report):
    program = make_program(experiment(), 40, make_mesh())
    assert (report.chips, report.kind, report.batch) == (8, "cpu", BATCH)
    assert report.memory.arguments == size(program.state) + size(program.clips) // 8
    assert report.state == size(program.state) + report.memory.code
    assert report.memory.outputs < 1000  # metrics; the state is donated
    collectives = {each.kind: each for each in report.costs.collectives}
    assert collectives["all-reduce"].operands >= size(program.state.params)
    assert collectives["all-reduce"].operands < 2 * size(program.state.params)
    assert collectives["all-gather"].operands >= BATCH // 8 * 2 * 8 * 4  # two embeddings a video
    assert report.times.compute == report.costs.flops / 1e12 > 0
    assert 0 < report.times.share < 1


def test_the_verdict_is_by_the_chips_memory(report):
    assert report.fits and format_verdict(report).startswith("Fits")
    small = dataclasses.replace(report, capacity=report.memory.total - 1)
    assert small.fits is False and format_verdict(small).startswith("Does not fit")
    assert small.largest_per_chip == BATCH // 8 - 1


def test_a_step_that_its_compiler_refuses_does_not_fit(report, monkeypatch):
    def refuse(lowered):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 3.50G of 1.00G hbm.")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    refused = preflight.compile_step(experiment(), make_mesh(), 40, CHIP)
    assert refused.fits is False and refused.costs is refused.times is None
    assert refused.memory.arguments == report.memory.arguments
    assert format_verdict(refused).startswith(
        "Does not fit: exceeds the 1.00 GiB of a chip by 2.50 GiB."
    )


def test_a_platform_gets_its_own_convolutions():
    described = experiment()
    half = dataclasses.replace(described, encoder=Tiny(dtype="bfloat16"))
    assert preflight.resolve_convolutions(described, "tpu").encoder.conv == "native"
    assert preflight.resolve_convolutions(described, "cpu").encoder.conv == "per_tap"
    assert preflight.resolve_convolutions(described, "gpu").encoder.conv == "native"
    assert preflight.resolve_convolutions(half, "gpu").encoder.conv == "planar"
    native = dataclasses.replace(described, encoder=Tiny(conv="native"))
    assert preflight.resolve_convolutions(native, "cpu") is native
    without = dataclasses.replace(described, encoder=ViT())
    assert preflight.resolve_convolutions(without, "tpu") is without


def test_what_training_refuses_is_refused():
    with pytest.raises(ValueError, match="train.batch must be a multiple of the 8 devices, got 12"):
        preflight.compile_step(experiment(batch=12), make_mesh(), 40, None)
    other = experiment()
    other = dataclasses.replace(other, evaluate=dataclasses.replace(other.evaluate, batch=4))
    with pytest.raises(ValueError, match="--config.evaluate.batch=8"):
        preflight.compile_step(other, make_mesh(), 40, None)


def start(*flags, name="synthetic_simclr", environment=ENVIRONMENT):
    line = command(name, "unused", **COLOURLESS)
    line[line.index("vrl_jax.main")] = "vrl_jax.preflight"
    return subprocess.run(
        [*line, *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_devices_are_simulated_and_figures_written(tmp_path):
    file = tmp_path / "new" / "figures.json"
    done = start("--devices=2", "--per_chip_batch=3", f"--json={file}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 x cpu, 6 videos per step, 3 per chip; compiled in ")
    assert "all-reduce" in done.stdout and "the memory of cpu is unknown" in done.stdout
    figures = json.loads(file.read_text())
    assert (figures["chips"], figures["batch"], figures["config"]["train"]["batch"]) == (2, 6, 6)
    assert figures["costs"]["flops"] > 0 and figures["memory"]["arguments"] > 0
    assert figures["versions"]["jax"] == jax.__version__ and figures["times"] is None


def test_impossible_slices_are_refused(monkeypatch):
    monkeypatch.setattr(preflight, "config_from_flags", experiment)
    monkeypatch.setattr(preflight.jax.config, "update", lambda *_: None)
    message = "^error: topology must be a TPU slice"
    with flagsaver.flagsaver(topology="v9:2x2"), pytest.raises(SystemExit, match=message):
        preflight.main()
    message = "^error: slices of v5e have the shapes 1x1, .*got '3x3'"
    with flagsaver.flagsaver(topology="v5e:3x3"), pytest.raises(SystemExit, match=message):
        preflight.main()


def test_a_failing_compiler_is_one_line(monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: ptxas too old.\nmore")

    monkeypatch.setattr(preflight, "config_from_flags", experiment)
    monkeypatch.setattr(preflight.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(preflight, "compile_step", fail)
    message = "^error: the compiler failed: UNIMPLEMENTED: ptxas too old.$"
    with pytest.raises(SystemExit, match=message):
        preflight.main()


def test_the_batch_of_a_chip_is_that_of_all():
    with flagsaver.flagsaver(per_chip_batch=5):
        target, mesh = preflight.target_from_flags(experiment())
    assert mesh == make_mesh() and target == experiment(batch=40)
    assert preflight.target_from_flags(experiment())[0] == experiment()
    with flagsaver.flagsaver(per_chip_batch=0), pytest.raises(ValueError, match="per_chip_batch"):
        preflight.target_from_flags(experiment())
    with flagsaver.flagsaver(json="gs://bucket/x.json"), pytest.raises(ValueError, match="gs://"):
        preflight.target_from_flags(experiment())
    with pytest.raises(ValueError, match="config must describe a pretraining run"):
        preflight.target_from_flags(config.build(eval_factors.get_config()))


def test_one_target_at_a_time():
    with flagsaver.flagsaver(topology="v5e:2x4", devices=8):
        with pytest.raises(ValueError, match="mutually exclusive: pass one"):
            preflight.devices_from_flags()
    assert preflight.devices_from_flags() == jax.devices()


def test_the_data_set_need_not_be_there(capsys):
    absent = dataclasses.replace(experiment(), data=ClassFolders())
    assert preflight.count_videos(absent) == BATCH
    assert capsys.readouterr().out.startswith("The dataset is absent (root must be a folder")
    assert preflight.count_videos(experiment()) == Synthetic().pretrain_videos
    with flagsaver.flagsaver(videos=7):
        assert preflight.count_videos(absent) == 7
    with flagsaver.flagsaver(videos=0), pytest.raises(ValueError, match="videos must be at least"):
        preflight.count_videos(absent)


@pytest.mark.slow
def test_a_slice_of_a_tpu_is_compiled_for(tmp_path):
    pytest.importorskip("libtpu")
    file = tmp_path / "figures.json"
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    flags = ("--topology=v5e:2x4", f"--json={file}")
    done = start(*flags, name="synthetic_bod", environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 x TPU v5 lite, 8 videos per step, 1 per chip")
    assert "Fits: " in done.stdout
    figures = json.loads(file.read_text())
    kinds = {each["kind"]: each for each in figures["costs"]["collectives"]}
    assert kinds["all-reduce"]["operands"] > 0 and figures["times"]["communication"] > 0
    assert figures["fits"] and figures["memory"]["temporaries"] > 0


@pytest.mark.slow
def test_gpus_are_compiled_for(tmp_path):
    pytest.importorskip("jax_cuda12_plugin")
    file = tmp_path / "figures.json"
    flags = ("--topology=h100:2x4", f"--json={file}", "--config.encoder.dtype=bfloat16")
    done = start(*flags, "--config.train.batch=16", "--config.evaluate.batch=16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 x NVIDIA H100 80GB HBM3, 16 videos per step, 2 per chip")
    assert "Fits: " in done.stdout and "JAX uses 75% of the 79.1 GiB" in done.stdout
    costs = json.loads(file.read_text())["costs"]
    assert costs["flops"] > 0 and costs["traffic"] > 0
    assert {"all-reduce"} <= {each["kind"] for each in costs["collectives"]}
    first = costs["layouts"]["channels_first"]  # the stem, whose kernel is over time and space
    assert set(first) == {"3x5x5"} and set(costs["layouts"]["channels_last"]) == {"3x3", "3x1"}
