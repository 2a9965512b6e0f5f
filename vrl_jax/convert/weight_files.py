"""Weight files of PyTorch and of this package; only .pt, .pth and .tar files need torch."""

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
from vrl_jax.convert import layout_match
from vrl_jax.convert.weight_layouts import find_layout
from vrl_jax.pretrained import TORCH_SUFFIXES, Pretrained

CONTAINERS = ("state_dict", "model_state", "model_state_dict", "model")


def read_weights(
    source: pathlib.Path, prefix: str | None = None, step: int | None = None
) -> tuple[Pretrained, list[str]]:
    """Return the encoder in a weight file or a run, and the names of arrays that it does not use.

    Args:
      source: the folder of a run, a file of `pretrained.save`, or a PyTorch weight file.
      prefix: of the parameter names, if a PyTorch file holds several encoders.
      step: of the run's checkpoint; the newest by default.

    Raises:
      ValueError: the file cannot be read, or holds no encoder with a known layout.
    """
    if source.suffix in TORCH_SUFFIXES:
        arrays = read_torch(source)
    elif source.suffix == ".safetensors" and not _is_ours(source):
        arrays = load_file(source)
    elif prefix is not None:
        raise ValueError(
            f"prefix must be None, since {source} is not a PyTorch file, got {prefix!r}"
        )
    else:
        return pretrained.load(source, step), []
    if step is not None:
        raise ValueError(f"step must be None, since {source} is not a run, got {step}")
    try:
        layout, prefix = layout_match.match_layout(arrays, prefix)
        encoder, variables, unused = layout_match.from_torch(arrays, layout, prefix)
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
    return Pretrained(encoder, layout.inputs, 0, variables, origin), unused


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
    """Return the arrays of a PyTorch file, or of the `state_dict` in a checkpoint.

    Code in the file is not executed.

    Raises:
      ValueError: the file holds no arrays, or other objects as well.
    """
    torch = _torch()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} must contain only tensors: {error}") from error
    return {name: _numpy(torch, tensor) for name, tensor in _tensors(torch, tree, path).items()}


def _tensors(torch: ModuleType, tree: Any, path: pathlib.Path) -> dict[str, Any]:
    """Return the tensors by name, looking into the containers of checkpoints."""
    while isinstance(tree, Mapping):
        inner = [name for name in CONTAINERS if isinstance(tree.get(name), Mapping)]
        tensors = {name: x for name, x in tree.items() if isinstance(x, torch.Tensor)}
        if tensors and not inner:
            return tensors
        if not inner:
            raise ValueError(f"{path} must contain tensors, got {', '.join(map(str, tree))}")
        tree = tree[inner[0]]
    raise ValueError(f"{path} must contain tensors by name, got a {type(tree).__name__}")


def _numpy(torch: ModuleType, tensor: Any) -> np.ndarray:
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "PyTorch files need torch: pip install 'vrl-jax[torch]' (.safetensors files do not)"
        ) from error
    return torch


def _is_ours(path: pathlib.Path) -> bool:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, "np") as file:
            return "encoder" in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
