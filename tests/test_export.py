"""An exported folder: it runs without the library, reads back, and its card says what it is."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file

from tests import quick_xla
from tests.arrays import load_arrays
from tests.encoders.reference import fill
from tests.encoders.test_contract import GATED, SHALLOW, narrow_networks
from vrl_jax import config, embed, export, model_card, pretrained
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.timesformer import TimeSformer
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.videoprism import VideoPrism
from vrl_jax.encoders.vivit import ViViT
from vrl_jax.evaluation.result_stamp import describe_model
from vrl_jax.experiment import Experiment
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.instance import Instance
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.report import result_files
from vrl_jax.report.run_reader import Run
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_loop import Train

ROOT = Path(__file__).parents[1]
EXPERIMENT = Experiment(
    data=ClassFolders(root="/home/someone/clips/k400"),
    sampling=Sampling(frames=4, stride=2, fps=25.0),
    resize=(12, 20),
    augment=Augment(size=8),
    encoder=Tiny(widths=(4, 6), strides=(2, 2)),
    framework=SimCLR(),
    method=Instance(dim=5),
    optim=SGD(learning_rate=0.1),
    init="gs://bucket/earlier.safetensors",
)
ENVIRONMENT = {"commit": "abc", "devices": "1 x cpu"}


def make_result(name, value, **model):
    content = {"name": name, "label": "class", "metric": "top-1 accuracy", "value": value}
    stamp = {"protocol": {"name": "linear|frozen", "clips": 10}, "data": {"set": "UCF101"}}
    return result_files.parse_result({**content, **stamp, "model": model}, Path("a.json"), "run")


@pytest.fixture(scope="module")
def model():
    plain = pretrained.init_untrained(EXPERIMENT.encoder, EXPERIMENT.augment, frames=4)
    return pretrained.from_run(EXPERIMENT, 1234, plain.variables)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "tiny"
    results = [make_result("linear", 0.5, **describe_model(model))]
    export.write_folder(out, model, ENVIRONMENT, results)
    return out


WITHOUT = """
import sys
sys.modules["vrl_jax"] = sys.modules["flax"] = None  # importing them fails
{code}
clips = np.load({clips!r})
np.savez({out!r}, **encode(weights, clips))
"""


def test_the_card_s_code_runs_without_this_library(model, folder, rng, tmp_path):
    clips = rng.integers(0, 256, (3, 4, 12, 20, 3), np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    names = {"clips": str(tmp_path / "clips.npy"), "out": str(tmp_path / "out.npz")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(code=code, **names)],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": quick_xla.FLAGS},  # one device
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    features = load_arrays(tmp_path / "out.npz")
    own = jax.jit(lambda clips: model(center_view(clips, model.augment)))(clips)
    np.testing.assert_allclose(features["clip"], own.clip, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["frames"], own.frames, rtol=1e-4, atol=1e-5)
    assert np.std(own.clip, 0).max() > 1e-2  # of clips, which differ


def test_programs_are_for_every_platform_and_dtype_and_run_over_devices(model, folder, rng):
    files = [folder / model_card.program_name(dtype) for dtype in model_card.DTYPES]
    programs = [jax.export.deserialize(bytearray(file.read_bytes())) for file in files]
    assert all(program.platforms == ("cpu", "cuda", "tpu") for program in programs)
    clips = rng.integers(0, 256, (8, 4, 12, 20, 3), np.uint8)
    rows = jax.device_put(clips, sharding.batch_sharding(sharding.make_mesh()))  # one a device

    @jax.jit
    def encode(weights, clips):
        return [program.call(weights, clips.astype(program.in_avals[-1].dtype))["clip"]
                for program in programs]  # fmt: skip

    whole, floats = encode(load_file(folder / pretrained.EXPORTED), rows)
    np.testing.assert_allclose(whole, floats, rtol=1e-5, atol=1e-6)
    alone = programs[0].call(load_file(folder / pretrained.EXPORTED), clips[:1])["clip"]
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_folder_is_read_back_as_the_run(model, folder, tmp_path):
    read = pretrained.load(folder)
    chex.assert_trees_all_equal(read.variables, model.variables)
    assert describe_model(read) == describe_model(model) and read.step == model.step
    data = replace(EXPERIMENT.data, root="k400")
    assert read.experiment == replace(EXPERIMENT, data=data, init="earlier.safetensors")
    assert (read.encoder, read.augment, read.sampling) == (
        model.encoder, model.augment, model.sampling
    )  # fmt: skip
    with pytest.raises(ValueError, match="step must be None, since .* is not a run, got 3"):
        pretrained.load(folder, step=3)
    with pytest.raises(ValueError, match="encoder.safetensors is an encoder alone"):
        pretrained.load(folder, parts=True)
    other = shutil.copytree(folder, tmp_path / "other")
    described = json.loads((folder / "config.json").read_text())
    described["method"]["kind"] = "named_by_a_folder:X"
    (other / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="needs the module named_by_a_folder: import it first"):
        pretrained.load(other)


def test_the_card_has_the_recipe_and_the_results_and_no_location(model, folder):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlicense_name: not-chosen\n")
    assert "**Licence: not chosen.**" in card and f"hash `{model.weight_hash()}`" in card
    assert "Method: Instance discrimination of clips, the baseline (the v- methods of" in card
    for row in ("`method` | Instance", "`method.dim` | 5", "`optim.learning_rate` | 0.1",
                "`data.root` | k400", "`step` | 1,234", "`commit` | abc"):  # fmt: skip
        assert f"| {row} |" in card
    assert "### linear\\|frozen" in card and "| 50.0 % |" in card and "clips 10" in card
    assert "4 frames with a stride of 2 at 25 fps" in card and "12 x 20" in card
    locations = (b"/home/someone", b"bucket", os.fsencode(ROOT))
    for path in folder.iterdir():
        assert not any(location in path.read_bytes() for location in locations), path


def make_run(folder, *results):
    return Run(Path(folder), {}, {}, [], [], list(results), None, None)


def test_results_are_those_of_the_weights():
    own, other, plain = (
        make_result("linear", 0.5, weights="w", init="/home/someone/run"),
        make_result("knn", 0.5, weights="of an earlier step"),
        make_result("linear", 0.1, weights="of no training", init="untrained"),
    )
    runs = [make_run("run", own, other, plain)]
    first, second = export.select_results(runs, "w", "mine")
    assert (first.name, first.run, first.model) == ("linear", "mine", {"weights": "w"})
    assert second.untrained
    assert export.select_results(runs, "of a later step", "mine") == []
    with pytest.raises(ValueError, match="^evaluation has no result of the weights w$"):
        export.select_results([*runs, make_run("evaluation", plain)], "w", "")


def test_what_cannot_be_exported_is_named(model, tmp_path, monkeypatch, capsys):
    pretrained.save(tmp_path / "a.safetensors", model)
    with pytest.raises(SystemExit, match="^error: .*a.safetensors is not a run: pass the folder"):
        export.main([str(tmp_path / "a.safetensors"), f"--out={tmp_path / 'new'}"])
    for words, message in (
        ([f"--out={tmp_path}"], f"--out must be a new folder, but {tmp_path} exists"),
        ([f"--out={tmp_path / 'new'}", "--batch=0"], "--batch must be at least 1, got 0"),
    ):
        with pytest.raises(SystemExit):
            export.main(["runs/mine", *words])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

    def needs_a_number(self, views):
        return views.reshape(int(views.shape[0]), -1)

    monkeypatch.setattr(pretrained.Pretrained, "__call__", needs_a_number)
    with pytest.raises(ValueError, match="^Tiny has no program for any .*: pass --batch=N$"):
        export.export_encoder(model, "uint8")


SIZED = {"width": 12, "depth": 2, "heads": 2, "patch": 4, "frames": 4, "size": 20}
MORE = (
    R2plus1D(blocks=SHALLOW, conv="planar", dtype="bfloat16"),
    R2plus1D(blocks=SHALLOW, conv="per_tap"),
    VideoPrism(**SIZED, time_depth=2),
    ViViT(**SIZED),
    TimeSformer(**SIZED),
    FourDS(**SIZED),
)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*GATED, *MORE], ids=repr)
def test_every_encoder_has_a_program_for_any_number_of_clips(encoder, monkeypatch, rng):
    narrow_networks(monkeypatch)
    augment = replace(EXPERIMENT.augment, size=20)
    experiment = replace(EXPERIMENT, encoder=encoder, resize=(20, 20), augment=augment)
    variables = {"batch_stats": {}, **fill(encoder.module(), (1, 4, 20, 20, 3), rng)}
    model = pretrained.from_run(experiment, 1, variables)
    program = export.export_encoder(model, "uint8")
    batch = program.in_avals[-1].shape[0]
    assert not isinstance(batch, int) and [x.shape[0] for x in program.out_avals] == [batch] * 2
    assert program.out_avals[0].shape[1] == encoder.dim


@pytest.mark.slow
def test_an_exported_run_is_embedded_as_the_run(tmp_path, capsys):
    """The whole way: a checkpoint, the command, and features from both folders, bit by bit."""
    run, mesh = tmp_path / "run", sharding.make_mesh(jax.devices()[:1])
    experiment = replace(EXPERIMENT, init="", train=Train(batch=8, steps=4))
    program = make_program(experiment, 8, mesh)
    run.mkdir()
    (run / "config.json").write_text(config.describe(experiment).to_json())

    def encoder(train):
        return program.method.encoder(train.params, train.state)

    with Checkpoints(run / "checkpoints", 1, {}, encoder=encoder) as checkpoints:
        checkpoints.save(program.init()._replace(step=jnp.int32(3)), 0.0)
    export.main([str(run), f"--out={tmp_path / 'mine'}"])
    assert "choose a licence" in capsys.readouterr().out
    files = {"README.md", "config.json", "encoder.safetensors"}
    programs = {model_card.program_name(dtype) for dtype in model_card.DTYPES}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == files | programs
    columns = []
    for name in ("run", "mine"):
        out = tmp_path / f"{name}.npz"
        fields = ["Synthetic", "test_videos=5", "frames=12", "--clips=2", "--workers=0"]
        embed.main([str(tmp_path / name), *fields, "--batch=8", f"--out={out}"])
        columns.append(load_arrays(out))
    np.testing.assert_array_equal(*(each["features"] for each in columns))
    assert str(columns[0]["about"]) == str(columns[1]["about"])
    assert columns[0]["features"].std(0).max() > 1e-3
