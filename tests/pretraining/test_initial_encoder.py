"""Pretraining from weights: encoder and teacher start from all of them, or the run is refused."""

from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from tests.pretraining.test_by_hand import small_experiment
from vrl_jax import pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.byol import BYOL
from vrl_jax.methods.instance import Instance
from vrl_jax.pretraining.initial_encoder import load_init
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.train.sharding import make_mesh

ENCODER = Tiny(widths=(4, 6), strides=(4, 2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    augment = Augment(size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    model = pretrained.init_untrained(ENCODER, augment, frames=8, seed=7)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    pretrained.save(path, model)
    return path, jax.device_get(model.variables)


def experiment(init):
    return replace(
        small_experiment(),
        encoder=Tiny(widths=(8,), strides=(2,), dtype="bfloat16"),
        method=Instance(),
        framework=BYOL(hidden=4),
        init=str(init),
    )


def test_encoder_and_teacher_start_from_the_weights(weights):
    path, expected = weights
    resolved, variables = load_init(experiment(path))
    assert resolved.encoder == replace(ENCODER, dtype="bfloat16")
    assert (resolved.augment.mean, resolved.augment.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert resolved.augment.jitter == experiment(path).augment.jitter
    program = make_program(resolved, 24, make_mesh(jax.devices()[:1]), variables)
    state = program.init()
    chex.assert_trees_all_equal(program.method.encoder(state.params, state.state), expected)
    kernel = max(jax.tree.leaves(expected["params"]), key=np.size)
    equal = [
        x.shape == kernel.shape and np.array_equal(x, kernel)
        for x in jax.tree.leaves((state.params, state.state))
    ]
    assert sum(equal) == 2  # the encoder's and its teacher's


def test_other_weights_are_refused_by_name(weights):
    path, _ = weights
    resolved, variables = load_init(experiment(path))
    other = replace(resolved, encoder=Tiny(widths=(4,), strides=(4,)))
    with pytest.raises(ValueError, match="init must have the encoder's arrays, but .*is unknown"):
        make_program(other, 24, make_mesh(jax.devices()[:1]), variables)


def test_functions_have_no_weights():
    wrong = experiment("tests.encoders.test_external:traced")
    with pytest.raises(ValueError, match="init must have weights to train, got the function"):
        load_init(wrong)


def test_without_init_nothing_changes():
    plain = experiment("")
    assert load_init(plain) == (plain, None)
