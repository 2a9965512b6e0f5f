import json
import subprocess

import jax.numpy as jnp

from configs import synthetic_bod
from vrl_jax import config, provenance


def test_weight_hash_sees_names_shapes_and_every_byte():
    base = {"a": jnp.arange(6.0), "b": jnp.zeros(2)}
    others = [
        {"a": jnp.arange(6.0).at[5].add(1e-6), "b": jnp.zeros(2)},
        {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(2)},
        {"c": jnp.arange(6.0), "b": jnp.zeros(2)},
    ]
    hashes = [provenance.weight_hash(tree) for tree in (base, *others)]
    assert len(set(hashes)) == 4
    assert provenance.weight_hash({"b": jnp.zeros(2), "a": jnp.arange(6.0)}) == hashes[0]


def test_a_run_writes_what_it_was(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    provenance.write(tmp_path, experiment)
    assert config.build(json.loads((tmp_path / "config.json").read_text())) == experiment
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["devices"].startswith("8 x ") and environment["jax"]


def test_the_commit_is_the_trees_own_or_nothing():
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    found = provenance.commit()
    assert found == "" or found.split(" ")[0] == head.stdout.strip()
