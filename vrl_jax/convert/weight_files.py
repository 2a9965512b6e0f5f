"""Weights in files and folders; only those of PyTorch's own format need torch."""

import argparse
import datetime
import hashlib
import pathlib
import types
import warnings
import zipfile
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from vrl_jax import pretrained
from vrl_jax.convert import layout_match, model_folder
from vrl_jax.convert.weight_layouts import find_layout
from vrl_jax.pretrained import TORCH_SUFFIXES, Pretrained

ARRAY_SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".npz")

# Keys of checkpoints under which trainers store state dicts
CONTAINERS = (
    *("state_dict", "model_state", "model_state_dict", "model", "network", "net", "module"),
    *("encoder", "target_encoder", "ema_encoder", "student", "teacher", "backbone"),
    *("model_ema", "ema", "state_dict_ema", "ema_state_dict"),
)

# What trainers store beside weights, and reading of which runs no code of the file
_scalar, (_reconstruct, *_) = np.float32(0).__reduce__()[0], np.zeros(0).__reduce__()
HARMLESS = (
    *(argparse.Namespace, types.SimpleNamespace),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    *(int, float, bool, str, list, dict, tuple, frozenset, slice, range),
    *(np.dtype, np.ndarray, *(getattr(np.dtypes, name) for name in np.dtypes.__all__)),
    *(
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")  # NumPy 1 and 2
        for function, name in ((_scalar, "scalar"), (_reconstruct, "_reconstruct"))
    ),
    *(
        (kind, f"{module}.{prefix}{kind.__name__.removeprefix('Pure')}")
        for module in ("pathlib", "pathlib._local")  # Python 3.13 writes the second
        for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath)
        for prefix in ("", "Pure")
    ),
)


def read_weights(
    source: pathlib.Path, prefix: str | None = None, step: int | None = None
) -> tuple[Pretrained, list[str]]:
    """Return the encoder in weight files or a run, and the names of arrays that it does not use.

    Args:
      source: the folder of a run or of a model of `transformers`, a file of `pretrained.save`, or a
        weight file of PyTorch, safetensors or NumPy.
      prefix: of the parameter names, if a file holds several encoders.
      step: of the run's checkpoint; the newest by default.

    Raises:
      ValueError: a file cannot be read, or holds no encoder with a known layout.
    """
    if model_folder.is_model(source):
        files, folder = model_folder.weight_paths(source), source
    elif _has_foreign_names(source):
        files, folder = [source], None
    elif prefix is not None:
        raise ValueError(f"prefix must be None, since {source} has our names, got {prefix!r}")
    else:
        return pretrained.load(source, step), []
    if step is not None:
        raise ValueError(f"step must be None, since {source} is not a run, got {step}")
    arrays, digest = {}, hashlib.sha256()
    for path in files:
        part = read_arrays(path)
        if repeated := sorted(arrays.keys() & part.keys()):
            raise ValueError(f"{path} repeats {layout_match.shorten_names(repeated)}")
        arrays |= part
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    try:
        config = model_folder.read_json(folder / "config.json") if folder else {}
        layout, prefix = layout_match.match_layout(arrays, prefix)
        encoder, variables, unused = layout_match.from_torch(arrays, layout, prefix, config)
        augment, sampling = model_folder.read_inputs(folder, config, layout, encoder)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    origin = {
        "layout": f"{layout.family} {layout.network}",
        "prefix": prefix,
        "source": source.resolve().name,
        "sha256": digest.hexdigest(),
    }
    variables = {"batch_stats": {}, **variables}
    return Pretrained(encoder, augment, 0, variables, origin, sampling=sampling), unused


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name, those of bfloat16 in float32.

    Names in `.npz` files have dots for slashes.

    Raises:
      ValueError: the file cannot be read.
    """
    if path.suffix in TORCH_SUFFIXES:
        return read_torch(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name.replace("/", "."): file[name] for name in file.files}
        with safetensors.safe_open(path, "np") as file, safetensors.safe_open(path, "flax") as ours:
            halves = {name for name in file.keys() if file.get_slice(name).get_dtype() == "BF16"}
            return {
                name: np.asarray(ours.get_tensor(name), np.float32)  # NumPy has no bfloat16
                if name in halves
                else file.get_tensor(name)
                for name in file.keys()
            }
    except (safetensors.SafetensorError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable {path.suffix} file: {error}") from error


def write_weights(out: pathlib.Path, encoder: Pretrained, family: str = "ours") -> None:
    """Write an encoder as a file for `pretrained.load`, or with the names of another code base.

    Raises:
      ValueError: the suffix of the file is unknown, or the code base has no such encoder.
    """
    if family == "ours":
        return pretrained.save(out, encoder)
    layout = find_layout(encoder.encoder, family)
    arrays = layout_match.to_torch(encoder.encoder, encoder.variables, layout)
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    if out.suffix == ".safetensors":
        save_file(arrays, out, {"format": "pt"})
    elif out.suffix in TORCH_SUFFIXES:
        torch = _torch()
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out)
    else:
        raise ValueError(f"weight files must end in .pth or .safetensors, got {out}")


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of a PyTorch file, or of the state dicts in a checkpoint.

    The names of several state dicts begin with their keys in the checkpoint. Code in the file is
    not executed.

    Raises:
      ValueError: the file holds no arrays, or objects that are not in `HARMLESS` as well.
    """
    torch = _torch()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    safe = torch.serialization.safe_globals(list(HARMLESS))
    with safe, warnings.catch_warnings(action="ignore"):  # of programs, which are refused
        try:
            tree = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of any kind, from a file of another format
            raise ValueError(
                f"{path} must contain only tensors, numbers and text, {_problem(path, error)}"
            ) from error
    tensors = _tensors(torch, tree)
    if not tensors:
        while isinstance(tree, Mapping) and (inner := [tree[n] for n in CONTAINERS if n in tree]):
            tree = inner[0]
        if not isinstance(tree, Mapping):
            kind = type(tree).__name__
            raise ValueError(f"{path} must contain tensors by name, got a {kind}")
        keys = ", ".join(map(str, tree)) or "nothing"
        raise ValueError(f"{path} must contain tensors, got {keys}: save a state dict alone")
    try:
        return {name: _numpy(tensor) for name, tensor in tensors.items()}
    except (TypeError, RuntimeError) as error:  # for instance sparse or quantised ones
        raise ValueError(f"{path} must contain tensors that NumPy has too: {error}") from error


def _problem(path: pathlib.Path, error: Exception) -> str:
    """Return in one line why PyTorch cannot read a file, and what to do."""
    torch = _torch()
    if "TorchScript" in str(error):
        return f"got a TorchScript program: save torch.jit.load({path.name!r}).state_dict()"
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # another format than that of `torch.save`
        names = []
    if not names:
        reason = (str(error).rpartition("error:")[2].strip().splitlines() or [""])[0]
        return f"but cannot be read: {type(error).__name__}: {reason}".removesuffix(": ")
    return (
        f"got {layout_match.shorten_names(names)}, which cannot be read safely: if you trust the "
        "file, load it where it was written with weights_only=False, and save the state dict in it"
    )


def _tensors(torch: ModuleType, tree: Any) -> dict[str, Any]:
    """Return the tensors by name, looking into the containers of checkpoints."""
    if not isinstance(tree, Mapping):
        return {}
    inner = {name: _tensors(torch, tree.get(name)) for name in CONTAINERS}
    inner = {name: tensors for name, tensors in inner.items() if tensors}
    if len(inner) == 1:
        return next(iter(inner.values()))
    if inner:
        return {f"{name}.{key}": x for name, tensors in inner.items() for key, x in tensors.items()}
    return {str(name): x for name, x in tree.items() if isinstance(x, torch.Tensor)}


def _numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "PyTorch files need torch: pip install 'vrl-jax[torch]' (.safetensors files do not)"
        ) from error
    return torch


def _has_foreign_names(path: pathlib.Path) -> bool:
    """Return whether a path is that of a weight file which `pretrained.save` did not write."""
    if path.is_dir() or path.suffix not in ARRAY_SUFFIXES:
        return False
    return path.suffix != ".safetensors" or not _is_ours(path)


def _is_ours(path: pathlib.Path) -> bool:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, "np") as file:
            return "encoder" in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
