"""Files of weights, theirs and ours. Only a PyTorch file (.pt, .pth, .tar) needs torch."""

import hashlib
import pathlib
import pickle
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from vrl_jax import pretrained
from vrl_jax.convert import match
from vrl_jax.convert.names import layout_for
from vrl_jax.pretrained import TORCH_SUFFIXES, Pretrained

CONTAINERS = ("state_dict", "model_state", "model_state_dict", "model")


def read_weights(
    source: pathlib.Path, prefix: str | None = None, step: int | None = None
) -> tuple[Pretrained, list[str]]:
    """Return an encoder of whatever kind of file or run, and the names that were left out.

    Args:
      source: a run's folder, our file, or a file of PyTorch's weights.
      prefix: of the encoder's names in PyTorch's file, where it has several.
      step: of the run's checkpoints; the newest by default.

    Raises:
      ValueError: a file that cannot be read, or that holds no encoder of ours.
    """
    if source.suffix in TORCH_SUFFIXES:
        arrays = read_torch(source)
    elif source.suffix == ".safetensors" and not _is_ours(source):
        arrays = load_file(source)
    elif prefix is not None:
        raise ValueError(f"{source} has no names of PyTorch's: prefix must be None, got {prefix!r}")
    else:
        return pretrained.load(source, step), []
    if step is not None:
        raise ValueError(f"{source} is no run: step must be None, got {step}")
    try:
        layout, prefix = match.match_layout(arrays, prefix)
        encoder, variables, left_out = match.to_ours(arrays, layout, prefix)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {
        "layout": f"{layout.family} {layout.network}",
        "prefix": prefix,
        "source": source.name,
        "sha256": digest,
    }
    return Pretrained(encoder, layout.inputs, 0, variables, origin), left_out


def write_weights(out: pathlib.Path, encoder: Pretrained, family: str = "ours") -> None:
    """Write an encoder as our file, or with another code base's names.

    Raises:
      ValueError: a file name that ends otherwise, or a code base without such an encoder.
    """
    if family == "ours":
        return pretrained.save(out, encoder)
    layout = layout_for(encoder.encoder, family)
    arrays = match.to_theirs(encoder.encoder, encoder.variables, layout)
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    if out.suffix == ".safetensors":
        save_file(arrays, out, {"format": "pt"})
    elif out.suffix in TORCH_SUFFIXES:
        torch = _torch()
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out)
    else:
        raise ValueError(f"weights are written to a .pth or .safetensors file, got {out}")


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of a PyTorch file, also where they lie in a checkpoint's `state_dict`.

    No code in the file is run.

    Raises:
      ValueError: it holds no arrays, or other objects than those.
    """
    torch = _torch()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no file of tensors alone: {error}") from error
    return {name: _numpy(torch, tensor) for name, tensor in _tensors(torch, tree, path).items()}


def _tensors(torch: ModuleType, tree: Any, path: pathlib.Path) -> dict[str, Any]:
    """Return the tensors by name, out of the containers that checkpoints put them in."""
    while isinstance(tree, Mapping):
        inner = [name for name in CONTAINERS if isinstance(tree.get(name), Mapping)]
        tensors = {name: x for name, x in tree.items() if isinstance(x, torch.Tensor)}
        if tensors and not inner:
            return tensors
        if not inner:
            raise ValueError(f"{path} holds no tensors, only {', '.join(map(str, tree))}")
        tree = tree[inner[0]]
    raise ValueError(f"{path} holds a {type(tree).__name__}, not tensors by name")


def _numpy(torch: ModuleType, tensor: Any) -> np.ndarray:
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "PyTorch's files need torch: pip install 'vrl-jax[torch]' (.safetensors files do not)"
        ) from error
    return torch


def _is_ours(path: pathlib.Path) -> bool:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, "np") as file:
            return "encoder" in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no readable .safetensors file: {error}") from error
