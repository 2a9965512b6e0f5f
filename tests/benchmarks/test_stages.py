import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import stages
from benchmarks.jax_step import make_device_program, make_experiment
from benchmarks.step import Settings
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.train.sharding import make_mesh

TINY = Settings(encoder="tiny", batch=2, frames=8, size=16)


def planned():
    """Return a run of two levels that is quick to compile; the lower one changes nothing."""
    augment = Augment(size=16, jitter=0.0, gray=0.0, blur=0.0)
    encoder = Tiny(widths=(8,), strides=(4,))
    method = MeanResidual(inner_steps=1, inner_learning_rate=0.0)
    run = make_experiment(TINY, method)
    return dataclasses.replace(run, augment=augment, encoder=encoder)


def test_a_stage_is_what_its_prefix_takes_more():
    prefixes = {"a": [1.0, 2.0], "b": [4.0, 3.0], "c": [4.5, 2.5]}
    assert stages.stage_seconds(prefixes) == {"a": [1.0, 2.0], "b": [3.0, 1.0], "c": [0.5, -0.5]}


@pytest.mark.slow
def test_prefixes_are_those_of_the_step(rng):
    run = planned()
    program = make_device_program(run)
    clips = rng.integers(256, size=program.clips.shape, dtype=np.uint8)
    sharded, mesh = jax.device_put(clips, program.clips.sharding), program.clips.sharding.mesh
    state, parts = program.init(), stages.make_prefixes(run, program)
    views = jax.eval_shape(parts["augmentation"], state, clips)
    assert views.shape == (2, 2, 8, 16, 16, 3)
    features, _ = jax.eval_shape(parts["encoder, forward"], state, clips)
    assert features.shape == (4, 8)
    (loss, _), grads = stages.compile_prefix(parts["backward"], mesh)(state, sharded)
    _, metrics = program.step.lower().compile()(state, sharded)
    np.testing.assert_allclose(loss, metrics["loss"], rtol=1e-5)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(jax.device_get(grads))))
    np.testing.assert_allclose(norm, metrics["norm/gradient"], rtol=1e-4)


@pytest.mark.slow
def test_a_run_prints_its_table_and_keeps_numbers_and_trace(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(stages, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    run = planned()
    stages.time_stages(run, 1, str(tmp_path / "trace"), tmp_path / "stages.json")
    numbers = json.loads((tmp_path / "stages.json").read_text())
    assert list(numbers["stages"])[-2:] == ["optimiser, update", "lower level"]
    *_, whole = numbers["prefixes"].values()
    np.testing.assert_allclose(sum(x for (x,) in numbers["stages"].values()), whole[0])
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert capsys.readouterr().out.count("\n| ") == 2 + 6
