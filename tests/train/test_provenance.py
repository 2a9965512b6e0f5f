import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.train import provenance


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
    provenance.write_provenance(tmp_path, experiment)
    assert config.build(json.loads((tmp_path / "config.json").read_text())) == experiment
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["devices"].startswith("8 x ") and environment["jax"]


ROOT = pathlib.Path(__file__).parents[2]


def head_commit():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not in git")
    return head.stdout.strip()


def test_the_commit_is_the_trees_own():
    assert provenance.source_commit().split(" ")[0] == head_commit()


def test_an_archive_knows_its_commit(tmp_path):
    expected = head_commit()
    archive = subprocess.run(["git", "archive", "HEAD", "vrl_jax"], cwd=ROOT, capture_output=True)
    subprocess.run(["tar", "x", "-C", tmp_path], input=archive.stdout, check=True)
    code = "from vrl_jax.train import provenance; print(provenance.source_commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr
