import json
import pathlib
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from configs import synthetic_bod
from tests.buckets import open_bucket
from tests.encoders.reference import count, fill
from vrl_jax import config, pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT
from vrl_jax.pretrained import Pretrained
from vrl_jax.train import provenance

SHAPE = (2, 4, 16, 16, 3)
INPUTS = Augment(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def draw(rng, encoder):
    variables = {"batch_stats": {}, **fill(encoder.module(), SHAPE, rng)}
    return Pretrained(encoder, INPUTS, 7, variables, {"method": "BOD", "step": 7})


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_arrays_of_any_strides_and_of_bfloat16_are_saved_by_value(rng, tmp_path, dtype):
    # safetensors writes the memory of an array that is not contiguous, in the wrong order.
    wrote = draw(rng, Tiny(widths=(4, 6, 8)))
    moved = jax.tree.map(lambda x: np.asarray(x).astype(dtype).T.copy().T, wrote.variables)
    strided = [leaf for leaf in jax.tree.leaves(moved) if not leaf.flags.c_contiguous]
    assert strided
    pretrained.save(tmp_path / "a.safetensors", replace(wrote, variables=moved))
    read = pretrained.load(tmp_path / "a.safetensors")
    chex.assert_trees_all_equal(read.variables, moved)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(read.variables))


def test_safetensors_are_written_in_two_places_alone():
    folder = pathlib.Path(pretrained.__file__).parent
    calls = {
        path.name: text.count("save_file(")
        for path in folder.rglob("*.py")
        if "save_file(" in (text := path.read_text())
    }
    assert calls == {"pretrained.py": 1, "weight_files.py": 1}  # both make arrays contiguous


@pytest.mark.parametrize(
    "encoder", [Tiny(widths=(4, 6, 8)), ViT(width=12, depth=4, heads=2, patch=8)], ids=repr
)
def test_a_file_gives_back_what_was_saved(rng, tmp_path, encoder):
    wrote = draw(rng, encoder)
    pretrained.save(tmp_path / "a.safetensors", wrote)
    read = pretrained.load(tmp_path / "a.safetensors")
    assert (read.encoder, read.augment, read.step) == (encoder, INPUTS, 7)
    assert (read.origin, read.experiment) == (wrote.origin, None)
    assert read.variables.keys() == wrote.variables.keys()
    chex.assert_trees_all_equal(read.variables, wrote.variables)
    assert read.weight_hash() == wrote.weight_hash()
    assert read.count_parameters() == count(wrote.variables["params"])
    clips = rng.integers(0, 256, (2, 4, 20, 24, 3), dtype=np.uint8)
    views = np.asarray(read.prepare(clips))
    assert views.shape == (2, 4, 16, 16, 3)
    middle = (clips[:, :, :, 2:22].mean((1, 2, 3)) / 255 - INPUTS.mean) / INPUTS.std
    np.testing.assert_allclose(views.mean((1, 2, 3)), middle, atol=0.05)
    encode = jax.jit(lambda views: [each(views).clip for each in (read, wrote)])
    np.testing.assert_array_equal(*encode(views))


def test_a_file_tells_its_hash_as_results_do(rng, tmp_path):
    wrote = draw(rng, Tiny(widths=(4, 6, 8)))
    pretrained.save(tmp_path / "a.safetensors", wrote)
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        about, names = file.metadata(), set(file.keys())
    tree = {"params": wrote.variables["params"], "stats": wrote.variables["batch_stats"]}
    assert about["weights"] == provenance.weight_hash(tree)
    assert {"params/stem/conv/kernel", "batch_stats/stem/norm/var"} <= names


def test_a_changed_file_is_refused(rng, tmp_path):
    path = tmp_path / "a.safetensors"
    pretrained.save(path, draw(rng, Tiny(widths=(4, 6, 8))))
    with safe_open(path, "np") as file:
        about = file.metadata()
    arrays = load_file(path)
    arrays["batch_stats/stem/norm/var"][0] += 1
    save_file(arrays, path, about)
    with pytest.raises(ValueError, match="a.safetensors is damaged"):
        pretrained.load(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a readable encoder file"):
        pretrained.load(path)


def test_a_remote_file_is_called_by_its_address():
    bucket, url = open_bucket(), "gs://bucket/a.safetensors"
    bucket.pipe(url, b"none")
    with pytest.raises(ValueError, match=f"^{url} is not a readable encoder file"):
        pretrained.load(url)


def test_what_is_no_encoder_of_ours_is_refused(rng, tmp_path):
    with pytest.raises(ValueError, match=r"convert it first: python -m vrl_jax.convert r3d\.pth"):
        pretrained.load("r3d.pth")
    with pytest.raises(ValueError, match="there is no file .*none.safetensors"):
        pretrained.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is not a run"):
        pretrained.load(tmp_path)
    save_file({"stem.0.weight": np.zeros(3)}, tmp_path / "theirs.safetensors")
    with pytest.raises(
        ValueError, match="must have the config of an encoder.*convert it first.*theirs.vrl.safe"
    ):
        pretrained.load(tmp_path / "theirs.safetensors")
    (tmp_path / "config.json").write_text(config.describe(Tiny()).to_json())
    with pytest.raises(
        ValueError, match="must be a run of pretraining, but its config is of type Tiny"
    ):
        pretrained.load(tmp_path)
    wrote = draw(rng, Tiny(widths=(4, 6, 8)))
    with pytest.raises(ValueError, match="must end in .safetensors, got .*a.npz"):
        pretrained.save(tmp_path / "a.npz", wrote)
    pretrained.save(tmp_path / "a.safetensors", wrote)
    with pytest.raises(ValueError, match="step must be None, since .* got 3"):
        pretrained.load(tmp_path / "a.safetensors", 3)


def test_a_file_does_not_have_foreign_code_imported(rng, tmp_path):
    (tmp_path / "named_by_a_file.py").write_text("raise SystemExit('it was run')")
    flat = {"params/w": rng.normal(size=3).astype(np.float32)}
    about = {"augment": "{}", "step": "0", "origin": "{}", "weights": ""}
    for kind in ("named_by_a_file:X", "os.path:X"):
        about["encoder"] = json.dumps({"kind": kind})
        save_file(flat, tmp_path / "a.safetensors", about)
        with pytest.raises(ValueError, match="a.safetensors .*(import it first|no component)"):
            pretrained.load(tmp_path / "a.safetensors")
    save_file(flat, tmp_path / "a.safetensors", {"encoder": "{}"})
    with pytest.raises(ValueError, match="a.safetensors is not a readable .*augment"):
        pretrained.load(tmp_path / "a.safetensors")


def test_a_run_without_a_checkpoint_says_so_and_stays_as_it_is(tmp_path):
    described = config.describe(config.build(synthetic_bod.get_config())).to_json()
    (tmp_path / "config.json").write_text(described)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        pretrained.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
