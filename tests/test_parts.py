"""A method's parts are judged by its run, by evaluations of the run, and written by `embed`."""

import contextlib
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.arrays import load_arrays
from vrl_jax import config, embed, pretrained
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.layers import pool_to_segments
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.evaluation.protocols.factors import Factors
from vrl_jax.evaluation.protocols.probes import Probes
from vrl_jax.experiment import Experiment
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.bod import BOD
from vrl_jax.pretraining.online_probes import OnlineProbes
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.probe_suite import ProbeConfig
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.optim import SGD
from vrl_jax.train.quarantine import open_quarantine
from vrl_jax.train.sharding import make_mesh
from vrl_jax.train.train_loop import Train

FEW = {"ks": (1,), "knn": 1, "linear": LinearProbe((0.1,), (0.001,), steps=20)}
DATA = Synthetic(
    pretrain_videos=8, train_videos=24, test_videos=24, classes=2, frames=12, motion="standing",
    drift=1.0,
)  # fmt: skip
EXPERIMENT = Experiment(
    data=DATA,
    sampling=Sampling(frames=8, stride=1, clips=2),
    resize=(12, 12),
    augment=Augment(size=8, flip=0.0),
    encoder=Tiny(widths=(4, 6), strides=(2, 2), conv="native"),
    framework=SimCLR(hidden=8, layers=2),
    method=BOD(dim=5, delay=2, pooling="rms", ridge=0.05, inner_steps=0),
    optim=SGD(learning_rate=0.1),
    train=Train(batch=8, steps=4),
    evaluate=ProbeConfig(**FEW, batch=8, neighbours=0, parts=True, segments=2),
)
WIDTHS = {"dynamic": 5, "ordered": 12, "static": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run before its first step, its method and its state."""
    folder, mesh = tmp_path_factory.mktemp("run"), make_mesh(jax.devices()[:1])
    program = make_program(EXPERIMENT, 8, mesh)
    state = program.init()
    (folder / "config.json").write_text(config.describe(EXPERIMENT).to_json())

    def encoder(train):
        return program.method.encoder(train.params, train.state)

    with Checkpoints(folder / "checkpoints", 1, {}, encoder=encoder) as checkpoints:
        checkpoints.save(state._replace(step=jnp.int32(3)), 0.0)
    return folder, program.method, state


def test_a_run_probes_its_parts_and_its_frames_in_order(run, tmp_path):
    _, method, state = run
    mesh, pretrain = make_mesh(jax.devices()[:1]), DATA.pretrain()
    probes = OnlineProbes(EXPERIMENT, method, mesh, tmp_path, pretrain)
    with contextlib.closing(open_quarantine(tmp_path, 0, 0.02)) as quarantine:
        probes.quarantine = quarantine
        results = probes._probe_parts(state, "untrained")
    probed = {(r["name"], r["label"]) for r in results}
    assert probed == {
        *((f"leakage/{part}", label) for part in WIDTHS for label in DATA.test().classes),
        *((f"response/{part}", factor) for part in WIDTHS for factor in DATA.test().twins()),
    }
    assert len(results) == len(probed) and all(r["model"]["init"] == "untrained" for r in results)
    assert all(r["value"] > 0 for r in results if r["name"].startswith("response"))
    silent = replace(EXPERIMENT, evaluate=replace(EXPERIMENT.evaluate, parts=False, segments=0))
    assert OnlineProbes(silent, method, mesh, tmp_path, pretrain)._probe_parts(state) == []


def views(rng, count=3):
    clips = rng.integers(0, 256, (count, 8, 12, 12, 3), np.uint8)
    return clips, jax.jit(lambda clips: center_view(clips, EXPERIMENT.augment))(clips)


@pytest.mark.slow
def test_loaded_parts_are_those_of_the_method_with_its_heads(run, rng):
    folder, method, state = run
    model = pretrained.load(folder, parts=True)
    assert model.parts.widths((1, 8, 8, 8, 3)) == {"dynamic": 5, "static": 5}
    _, seen = views(rng)
    own = jax.jit(method.parts)(state.params, state.state, seen)
    loaded = jax.jit(model.parts.joined)(model.parts.weights, seen)
    np.testing.assert_allclose(
        loaded, np.concatenate([own["dynamic"], own["static"]], 1), rtol=1e-4, atol=1e-6
    )
    ordered = pretrained.add_ordered(model, 2).parts
    assert ordered.widths((1, 8, 8, 8, 3)) == WIDTHS
    assert pretrained.load(folder).parts is None


def test_segments_are_means_over_consecutive_frames(rng):
    frames = rng.normal(size=(2, 6, 3)).astype(np.float32)
    got = jax.jit(pool_to_segments, static_argnums=1)(frames, 3)
    np.testing.assert_allclose(got, frames.reshape(2, 3, 2, 3).mean(2).reshape(2, 9), rtol=1e-5)
    with pytest.raises(ValueError, match="segments must be at most 6, the frames, got 7"):
        pool_to_segments(jnp.asarray(frames), 7)


@pytest.mark.slow
def test_embed_writes_the_parts(run, tmp_path):
    folder, method, state = run
    out = tmp_path / "a.npz"
    fields = ["test_videos=5", "frames=12"]
    embed.main(
        [str(folder), "Synthetic", *fields, "--clips=2", "--parts", "--batch=8", "--workers=0",
         f"--out={out}"]
    )  # fmt: skip
    columns = load_arrays(out)
    assert columns["part_static"].shape == columns["part_dynamic"].shape == (5, 5)
    assert columns["features"].shape == (5, 6)
    assert json.loads(str(columns["about"]))["protocol"]["embeddings"] == "features and parts"
    clips = (
        Synthetic(test_videos=5, frames=12)
        .test()[4]
        .media.read(np.array([range(8), range(4, 12)]), (12, 12))
    )
    seen = center_view(jnp.asarray(clips), EXPERIMENT.augment)
    own = jax.jit(method.parts)(state.params, state.state, seen)
    np.testing.assert_allclose(columns["part_static"][4], own["static"].mean(0), rtol=1e-3)


def test_what_makes_no_parts_says_so(run, tmp_path):
    path = tmp_path / "a.safetensors"
    pretrained.save(path, pretrained.load(run[0]))
    with pytest.raises(ValueError, match="a.safetensors is an encoder alone"):
        pretrained.load(path, parts=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Probes, Factors])
def test_evaluations_read_the_parts_of_a_run(run, tmp_path, kind):
    settings = {"parts": True, "linear": FEW["linear"]}
    extra = {"ks": (1,), "knn": 1, "segments": 2} if kind is Probes else {"permutations": 1}
    protocol = kind(**settings, **extra)
    evaluation = Evaluation(DATA, protocol, init=str(run[0]), untrained=False)
    assert EvaluationRun(evaluation, tmp_path, quiet=True)()
    names = {path.stem for path in (tmp_path / "results").glob("*.json")}
    labels = DATA.test().classes
    assert {f"leakage-{part}-{x}" for part in ("static", "dynamic") for x in labels} <= names
    assert ("leakage-ordered-drift" in names) == (kind is Probes)
    assert ("response-static-phase" in names) == (kind is Factors)
