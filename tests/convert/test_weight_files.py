"""Files are read whatever surrounds the weights, and written so that they can be read again."""

import argparse
import datetime
import functools
import hashlib
import json
import pathlib
import pickle
import sys
import types
import warnings
import zipfile

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from configs import synthetic_bod
from tests.encoders.reference import fill
from vrl_jax import config, pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.convert import layout_match, weight_files
from vrl_jax.convert.__main__ import main
from vrl_jax.encoders import c3d, r2plus1d, r3d, s3d, slowonly
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.pretrained import Pretrained

ENCODERS = [
    ("torchvision", R3D((1, 2, 1, 1))),
    ("torchvision", R2plus1D()),
    ("torchvision", S3D()),
    ("pytorchvideo", SlowOnly((1, 2, 1, 1))),
    ("dualvar", R2plus1D((1, 1, 1, 2), variant="vcop")),
    ("dualvar", R3D((1, 2, 1, 1))),
    ("dualvar", C3D()),
]


@pytest.fixture(autouse=True, scope="module")
def narrow():
    """Leave of the networks what is small on disk."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (r3d, r2plus1d, slowonly):
            monkeypatch.setattr(module, "WIDTHS", (4, 5, 6, 8))
        monkeypatch.setattr(c3d, "WIDTHS", ((4,), (4,), (4, 6), (6, 4), (8, 12)))
        monkeypatch.setattr(s3d, "STAGES", (((3, 4, 5, 3, 4, 2),) * 2,) * 3)
        layout_match.torch_arrays.cache_clear()
        yield
    layout_match.torch_arrays.cache_clear()


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@functools.cache
def draw(encoder):
    """Return the encoder with generic variables; only `narrow` networks are traced quickly."""
    variables = fill(encoder.module(), (1, 8, 32, 32, 3), np.random.default_rng(0))
    return Pretrained(encoder, Augment(), 0, variables, {})


def same(a, b):
    assert a.encoder == b.encoder
    assert jax.tree.structure(a.variables) == jax.tree.structure(b.variables)
    chex.assert_trees_all_equal(a.variables, b.variables)


SMALL = R3D((1, 1, 1, 1))


def small(path):
    """Write a small R3D with torchvision's names; return it and its arrays."""
    wrote = draw(SMALL)
    weight_files.write_weights(path, wrote, "torchvision")
    return wrote, load_file(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("family, encoder", ENCODERS, ids=str)
def test_weights_come_back_bit_by_bit(tmp_path, family, encoder, suffix):
    if suffix == "pth":
        pytest.importorskip("torch")
    path = tmp_path / f"theirs.{suffix}"
    wrote = draw(encoder)
    weight_files.write_weights(path, wrote, family)
    read, unused = weight_files.read_weights(path)
    same(read, wrote)
    assert not unused and read.origin["layout"].startswith(family)
    assert read.origin["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.weight_hash() == wrote.weight_hash()
    weight_files.write_weights(tmp_path / "ours.safetensors", read)
    again, _ = weight_files.read_weights(tmp_path / "ours.safetensors")
    same(again, wrote)
    assert (again.origin, again.augment) == (read.origin, read.augment)


def test_arrays_of_any_strides_are_written_by_value(tmp_path, monkeypatch):
    wrote, arrays = small(tmp_path / "a.safetensors")
    strided = {name: x.T.copy().T for name, x in arrays.items()}
    assert not all(x.flags.c_contiguous for x in strided.values())
    monkeypatch.setattr(layout_match, "to_torch", lambda *_: strided)
    weight_files.write_weights(tmp_path / "b.safetensors", wrote, "torchvision")
    for name, array in load_file(tmp_path / "b.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_torch_is_needed_for_its_own_files_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    wrote, _ = small(tmp_path / "a.safetensors")
    same(weight_files.read_weights(tmp_path / "a.safetensors")[0], wrote)
    with pytest.raises(ValueError, match=r"pip install 'vrl-jax\[torch\]'"):
        weight_files.read_weights(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"pip install 'vrl-jax\[torch\]'"):
        weight_files.write_weights(tmp_path / "a.pth", wrote, "torchvision")


def test_what_is_written_is_what_pytorch_expects(tmp_path, torch):
    wrote = draw(SMALL)
    weight_files.write_weights(tmp_path / "a.pth", wrote, "torchvision")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert isinstance(state, dict) and all(x.is_contiguous() for x in state.values())
    assert state["stem.0.weight"].shape == (4, 3, 3, 7, 7)
    assert state["stem.1.num_batches_tracked"].dtype is torch.int64
    assert state["stem.1.num_batches_tracked"].shape == ()
    kernel = wrote.variables["params"]["stem"]["conv"]["kernel"]
    assert float(state["stem.0.weight"][3, 1, 2, 4, 5]) == kernel[2, 4, 5, 1, 3]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    _, arrays = small(tmp_path / "a.safetensors")
    arrays["layer1.0.conv1.0.weight"][0] = np.nan
    save_file(arrays, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity in layer1.0.conv1.0"):
        weight_files.read_weights(tmp_path / "b.safetensors")


def test_a_number_beside_the_weights_is_no_weight(tmp_path, torch):
    wrote, arrays = small(tmp_path / "a.safetensors")
    state = {name: torch.from_numpy(x) for name, x in arrays.items()}
    torch.save({"state_dict": state, "best_acc1": torch.tensor(3.0)}, tmp_path / "b.pth")
    read, unused = weight_files.read_weights(tmp_path / "b.pth")
    assert read.weight_hash() == wrote.weight_hash() and unused == []


@pytest.mark.parametrize(
    "container, prefix",
    [
        ("state_dict", ""),
        ("model", "module."),
        ("model_state", "backbone."),
        ("state_dict", "module.encoder_q.0."),
    ],
)
def test_containers_and_prefixes_are_looked_through(tmp_path, torch, container, prefix):
    wrote, arrays = small(tmp_path / "a.safetensors")
    state = {prefix + name: torch.from_numpy(x) for name, x in arrays.items()}
    state[f"{prefix}fc.weight"] = torch.zeros(9, 8)
    if prefix:
        state["projector.2.bias"] = torch.zeros(3)
    inner = {"epoch": 3, container: {container: state} if prefix else state}
    torch.save(inner, tmp_path / "b.pth.tar")
    read, unused = weight_files.read_weights(tmp_path / "b.pth.tar")
    same(read, wrote)
    assert read.origin["prefix"] == prefix
    assert unused == sorted([f"{prefix}fc.weight", *["projector.2.bias"] * bool(prefix)])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_read_as_float32(tmp_path, torch, kind):
    from safetensors.torch import save_file as save_torch

    wrote, arrays = small(tmp_path / "a.safetensors")
    dtype = getattr(torch, kind)
    state = {n: torch.from_numpy(x) for n, x in arrays.items()}
    state = {n: x.to(dtype) if x.is_floating_point() else x for n, x in state.items()}
    torch.save(state, tmp_path / "b.pt")
    save_torch(state, tmp_path / "b.safetensors")
    for name in ("b.pt", "b.safetensors"):
        read, _ = weight_files.read_weights(tmp_path / name)
        kernel = read.variables["params"]["stem"]["conv"]["kernel"]
        assert kernel.dtype == np.float32
        expected = wrote.variables["params"]["stem"]["conv"]["kernel"]
        np.testing.assert_allclose(kernel, expected, rtol=2**-8)
        assert (kernel == expected).all() == (kind == "float64")


@pytest.mark.parametrize("suffix", ["pt", "pth", "pyth", "ckpt", "bin", "pth.tar"])
def test_every_suffix_of_pytorch_is_read_and_init_says_how(tmp_path, torch, suffix):
    wrote, arrays = small(tmp_path / "a.safetensors")
    path = tmp_path / f"b.{suffix}"
    state = {
        name: torch.nn.Parameter(torch.from_numpy(x), x.dtype != int) for name, x in arrays.items()
    }
    torch.save(state, path)
    same(weight_files.read_weights(path)[0], wrote)
    with pytest.raises(
        ValueError, match=rf"{path} has the names of another library, convert it first: .*b.vrl"
    ):
        pretrained.load(path)
    path.rename(tmp_path / "weights.pkl")
    with pytest.raises(
        ValueError, match=r"weight files must end in .safetensors, .pt, .*rename it"
    ):
        pretrained.load(tmp_path / "weights.pkl")


def test_plain_data_of_trainers_is_read(tmp_path, torch):
    wrote, arrays = small(tmp_path / "a.safetensors")
    utc = datetime.UTC
    about = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/runs")),
        "hyper_parameters": types.SimpleNamespace(depth=18),
        "meta": {
            "time": datetime.datetime(2024, 1, 2, tzinfo=utc),
            "day": datetime.date(2024, 1, 2),
        },
        "best": [np.float32(1), np.float64(0.5), np.int64(3), np.bool_(True), np.str_("x")],
        "rng": np.random.get_state(),
        "names": np.array(["a", None], object),
    }
    state = {name: torch.from_numpy(x) for name, x in arrays.items()}
    torch.save({"state_dict": state, **about}, tmp_path / "b.pth")
    same(weight_files.read_weights(tmp_path / "b.pth")[0], wrote)
    torch.save({"state_dict": state, **about}, tmp_path / "b.pth", pickle_module=numpy_1_pickle)
    same(weight_files.read_weights(tmp_path / "b.pth")[0], wrote)


@pytest.mark.parametrize("name", [b"pathlib._local\nPosixPath", b"pathlib\nWindowsPath"])
def test_paths_of_other_machines_are_read(tmp_path, torch, name):
    wrote, arrays = small(tmp_path / "a.safetensors")
    state = {key: torch.from_numpy(x) for key, x in arrays.items()}
    torch.save({"state_dict": state, "out": pathlib.PurePosixPath("/runs")}, tmp_path / "b.pth")
    with (
        zipfile.ZipFile(tmp_path / "b.pth") as old,
        zipfile.ZipFile(tmp_path / "c.pth", "w") as new,
    ):
        for member in old.namelist():
            content = old.read(member).replace(b"pathlib\nPurePosixPath", name)
            new.writestr(member, content)
    same(weight_files.read_weights(tmp_path / "c.pth")[0], wrote)


class numpy_1_pickle:
    """Pickling under the module names of NumPy 1."""

    class Pickler(pickle._Pickler):
        def save_global(self, obj, name=None):
            if getattr(obj, "__module__", "") == "numpy._core.multiarray":
                self.write(pickle.GLOBAL + f"numpy.core.multiarray\n{obj.__name__}\n".encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = {**pickle._Pickler.dispatch, types.FunctionType: save_global}

    dumps = staticmethod(pickle.dumps)


@pytest.mark.parametrize("keys", [("encoder",), ("network",), ("student",), ("teacher",)])
def test_containers_of_other_trainers_are_looked_through(tmp_path, torch, keys):
    wrote, arrays = small(tmp_path / "a.safetensors")
    state = {f"backbone.{name}": torch.from_numpy(x) for name, x in arrays.items()}
    others = {"decoder": {"w": torch.ones(2)}, "model": {"depth": 18}}
    torch.save({**dict.fromkeys(keys, state), **others}, tmp_path / "b.pth")
    read, unused = weight_files.read_weights(tmp_path / "b.pth")
    same(read, wrote)
    assert read.origin["prefix"] == "backbone." and not unused


@pytest.mark.parametrize(
    "keys",
    [
        ("student", "teacher"),
        ("encoder", "target_encoder"),
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
    ],
)
def test_of_several_encoders_none_is_taken_unasked(tmp_path, torch, keys):
    _, arrays = small(tmp_path / "a.safetensors")
    state = {name: torch.from_numpy(x) for name, x in arrays.items()}
    averaged = {name: x + 1 for name, x in state.items()}
    torch.save(dict(zip(keys, (state, averaged), strict=True)), tmp_path / "b.pth")
    with pytest.raises(ValueError, match=rf"several encoders: .*'{keys[0]}\.', '{keys[1]}\.'"):
        weight_files.read_weights(tmp_path / "b.pth")
    for number, key in enumerate(keys):
        read, unused = weight_files.read_weights(tmp_path / "b.pth", f"{key}.")
        bias = read.variables["params"]["stem"]["norm"]["bias"]
        np.testing.assert_array_equal(bias, arrays["stem.1.bias"] + number)
        assert all(name.startswith(keys[1 - number]) for name in unused) and unused


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in the file was run')",)


def test_files_that_hold_no_weights_are_refused(tmp_path, torch):
    path = tmp_path / "a.pth"
    for content, complaint in (
        (
            {"model": Trap()},
            "must contain only tensors, .* got builtins.exec, which cannot be read safely",
        ),
        (
            torch.nn.Conv2d(1, 1, 1),
            "got torch.nn.modules.conv.Conv2d, .* save the state dict in it",
        ),
        ({"epoch": 3, "lr": 0.1}, "must contain tensors, got epoch, lr"),
        ({"state_dict": {"epoch": 3}}, "must contain tensors, got epoch: save a state dict alone"),
        ([torch.zeros(3)], "must contain tensors by name, got a list"),
        ({"weight": torch.zeros(3)}, "a.pth: parameter names must be those of .*; got weight"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=complaint) as caught:
            weight_files.read_weights(path)
        assert "\n" not in str(caught.value)
    with warnings.catch_warnings(action="ignore"):  # it is deprecated
        torch.jit.script(torch.nn.Conv2d(1, 1, 1)).save(str(path))
    with pytest.raises(ValueError, match=r"a TorchScript program: save torch.jit.load\('a.pth'\)"):
        weight_files.read_weights(path)
    for text, complaint in (
        ("", "EOFError$"),
        ("hello", "KeyError: 101"),
        ("<html>", "Unpickling"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"must contain only tensors, .* read: {complaint}"):
            weight_files.read_weights(path)
    torch.save({"weight": torch.eye(2).to_sparse()}, path)
    with pytest.raises(
        ValueError, match="a.pth must contain tensors that NumPy has too: .* Sparse"
    ):
        weight_files.read_weights(path)
    (tmp_path / "a.safetensors").write_text("nothing")
    with pytest.raises(ValueError, match="not a readable .safetensors file"):
        weight_files.read_weights(tmp_path / "a.safetensors")
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(ValueError, match="there is no file"):
            weight_files.read_weights(tmp_path / name)


def test_arguments_that_mean_nothing_are_refused(tmp_path):
    wrote, _ = small(tmp_path / "a.safetensors")
    pretrained.save(tmp_path / "ours.safetensors", wrote)
    with pytest.raises(ValueError, match="step must be None, since .* is not a run, got 3"):
        weight_files.read_weights(tmp_path / "a.safetensors", step=3)
    with pytest.raises(ValueError, match="prefix must be None, since .* has our names"):
        weight_files.read_weights(tmp_path / "ours.safetensors", prefix="x.")
    with pytest.raises(ValueError, match="must end in .pth or .safetensors, got .*a.onnx"):
        weight_files.write_weights(tmp_path / "a.onnx", wrote, "torchvision")
    with pytest.raises(
        ValueError, match="pytorchvideo has no names for R3D.*: dualvar, torchvision"
    ):
        weight_files.write_weights(tmp_path / "a.pth", wrote, "pytorchvideo")


def test_the_command_converts_there_and_back(tmp_path, capsys):
    theirs, ours, back = (
        tmp_path / f"{name}.safetensors" for name in ("theirs", "ours", "new/back")
    )
    wrote, arrays = small(theirs)
    save_file({**arrays, "fc.weight": np.zeros((9, 8)), "fc.bias": np.zeros(9)}, theirs)
    main([str(theirs), f"--out={ours}", "--mean=0.5,0.4,0.3", "--size=64"])
    text = capsys.readouterr().out
    assert "torchvision R3D" in text and "not used  fc.bias (1), fc.weight (1)" in text
    assert hashlib.sha256(theirs.read_bytes()).hexdigest() in text and wrote.weight_hash() in text
    assert f"{wrote.count_parameters():,} parameters" in text
    read = pretrained.load(ours)
    same(read, wrote)
    inputs = Augment(size=64, mean=(0.5, 0.4, 0.3), std=(0.22803, 0.22145, 0.216989))
    assert read.augment == inputs and read.origin["source"] == "theirs.safetensors"
    main([str(ours), "--to=torchvision", f"--out={back}"])
    assert "not used  nothing" in capsys.readouterr().out
    for name, array in load_file(back).items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
    with pytest.raises(SystemExit, match="error: pytorchvideo has no names for R3D"):
        main([str(ours), "--to=pytorchvideo", f"--out={back}"])
    with pytest.raises(SystemExit):
        main([str(theirs), f"--out={ours}", "--mean=0.5"])


@pytest.mark.parametrize(
    "encoder, note", [(R3D((1, 1, 1, 1), temporal_stride=1), True), (SMALL, False)]
)
def test_a_run_is_exported(tmp_path, capsys, encoder, note):
    wrote, run = draw(encoder), tmp_path / "run"
    described = synthetic_bod.get_config()
    described.encoder = config.describe(encoder)
    run.mkdir()
    (run / "config.json").write_text(described.to_json())
    with ocp.CheckpointManager(run / "checkpoints") as manager:
        manager.save(5, args=ocp.args.Composite(encoder=ocp.args.StandardSave(wrote.variables)))
    main([str(run), "--to=torchvision", f"--out={tmp_path / 'theirs.safetensors'}"])
    assert ("has a temporal stride of 8" in capsys.readouterr().out) == note
    read, _ = weight_files.read_weights(tmp_path / "theirs.safetensors")
    assert read.weight_hash() == wrote.weight_hash()
    main([str(run), f"--out={tmp_path / 'ours.safetensors'}", "--step=5"])
    read = pretrained.load(tmp_path / "ours.safetensors")
    same(read, wrote)
    experiment = config.build(json.loads((run / "config.json").read_text()))
    assert read.step == 5 and read.augment == experiment.augment
    assert read.origin == {"method": "BOD", "framework": "SimCLR", "step": 5}


def test_encoders_without_names_elsewhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match="torchvision has no names for Tiny"):
        weight_files.write_weights(tmp_path / "a.safetensors", draw(Tiny()), "torchvision")
