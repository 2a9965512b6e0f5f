"""Trained encoders: `encoder = pretrained.load("runs/mine"); encoder(clips).clip`.

An encoder is loaded from the checkpoints of a run or from a `.safetensors` file with arrays
`params/...` and `batch_stats/...` and the config in its metadata. `python -m vrl_jax.convert`
writes such files from PyTorch weights or from a run. Both may be on an object store, `gs://...`.
"""

import json
import pathlib
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8
from safetensors.numpy import save_file

from vrl_jax import config
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.experiment import Experiment
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.report.remote_runs import CHECKPOINTS
from vrl_jax.train import provenance
from vrl_jax.train.checkpoint import restore_encoder
from vrl_jax.types import Features

TORCH_SUFFIXES = (".pt", ".pth", ".pyth", ".ckpt", ".bin", ".tar")


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its weights and their origin.

    Attributes:
      encoder: the network.
      augment: the input of the encoder: its size, mean and standard deviation.
      step: of training; 0 if unknown.
      variables: {"params": ..., "batch_stats": ...}, for `encoder.module()`.
      origin: of the weights, for results, as JSON: method, framework and step of a run, or layout
        and SHA-256 of a converted file.
      experiment: config of the run; None if the weights come from a file.
    """

    encoder: EncoderConfig
    augment: Augment
    step: int
    variables: dict[str, Any]
    origin: dict[str, Any]
    experiment: Experiment | None = None

    def __call__(self, views: Float[Array, "b t h w 3"]) -> Features:
        """Encode clips that were prepared by `prepare`, with running statistics."""
        return self.encoder.module().apply(self.variables, views, False)

    def prepare(self, clips: UInt8[np.ndarray, "b t h w 3"]) -> Float[Array, "b t s s 3"]:
        """Return the central square of decoded clips, resized and normalised as in evaluation."""
        return center_view(jnp.asarray(clips), self.augment)

    def count_parameters(self) -> int:
        """Return the number of trainable parameters, without running statistics."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def weight_hash(self) -> str:
        """Return the hash of weights and statistics, as in results."""
        tree = {"params": self.variables["params"], "stats": self.variables["batch_stats"]}
        return provenance.weight_hash(tree)


def init_untrained(
    encoder: EncoderConfig, augment: Augment, frames: int, seed: int = 0
) -> Pretrained:
    """Return an encoder with random weights, as a baseline.

    Args:
      encoder: the network.
      augment: its input.
      frames: frames per clip.
      seed: of the weights.
    """
    clip = jnp.zeros((1, frames, augment.size, augment.size, 3))
    variables = jax.jit(encoder.module().init, static_argnums=2)(jax.random.key(seed), clip, False)
    return Pretrained(encoder, augment, 0, {"batch_stats": {}, **variables}, {})


def load(path: str | AnyPath, step: int | None = None) -> Pretrained:
    """Return the encoder of a run, or of a file written by `save`.

    Args:
      path: folder of the run, or the file.
      step: of the run's checkpoint; the newest by default.

    Raises:
      ValueError: there is no such run, file or checkpoint, or the file is damaged or PyTorch's.
    """
    path = remote_paths.to_path(path)
    if path.suffix in TORCH_SUFFIXES:
        raise ValueError(f"{path} is a PyTorch file, {_how_to_convert(path)}")
    if path.suffix == ".safetensors":
        if step is not None:
            raise ValueError(f"step must be None, since {path} is not a run, got {step}")
        return _load_file(path)
    if remote_paths.is_file(path):
        suffixes = ", ".join((".safetensors", *TORCH_SUFFIXES))
        raise ValueError(f"weight files must end in {suffixes}, got {path}: rename it")
    config_path = path / "config.json"
    if not remote_paths.is_file(config_path):
        raise ValueError(f"{path} is not a run: there is no {config_path}")
    try:
        experiment = config.build(json.loads(config_path.read_text()))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{config_path} is not a config of this version: {error}") from error
    if not isinstance(experiment, Experiment):
        kind = type(experiment).__name__
        raise ValueError(f"{path} must be a run of pretraining, but its config is of type {kind}")
    step, variables = restore_encoder(path / CHECKPOINTS, step)
    return from_run(experiment, step, jax.device_put(variables))


def from_run(experiment: Experiment, step: int, variables: dict[str, Any]) -> Pretrained:
    """Return the encoder of a run from its variables at a step."""
    origin = {
        "method": type(experiment.method).__name__,
        "framework": experiment.framework_name,
        "step": step,
    }
    return Pretrained(experiment.encoder, experiment.augment, step, variables, origin, experiment)


def save(path: str | pathlib.Path, pretrained: Pretrained) -> None:
    """Write an encoder to a `.safetensors` file for `load`."""
    path = remote_paths.to_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path}")
    flat = flatten_dict(jax.tree.map(np.asarray, pretrained.variables), sep="/")
    metadata = {
        "encoder": config.describe(pretrained.encoder).to_json(),
        "augment": config.describe(pretrained.augment).to_json(),
        "step": str(pretrained.step),
        "origin": json.dumps(pretrained.origin),
        "weights": pretrained.weight_hash(),
    }
    save_file({name: np.array(array, order="C") for name, array in flat.items()}, path, metadata)


def _load_file(path: AnyPath) -> Pretrained:
    if not remote_paths.is_file(path):
        raise ValueError(f"there is no file {path}")
    if not remote_paths.is_remote(path):
        return _read_file(path, path)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        return _read_file(copy, path)


def _read_file(copy: pathlib.Path, path: AnyPath) -> Pretrained:
    """Return the encoder in `copy`, a copy of `path`, which errors name."""
    try:
        with safetensors.safe_open(copy, "np") as file:
            metadata = file.metadata() or {}
            if "encoder" not in metadata:
                raise ValueError(
                    f"{path} must have the config of an encoder in its metadata: "
                    f"{_how_to_convert(path)}"
                )
            flat = {name: file.get_tensor(name) for name in file.keys()}
        encoder, augment = (json.loads(metadata[part]) for part in ("encoder", "augment"))
        _check_imported([encoder, augment])
        model = Pretrained(
            encoder=config.build(encoder),
            augment=config.build(augment),
            step=int(metadata["step"]),
            variables={"batch_stats": {}, **unflatten_dict(flat, sep="/")},
            origin=json.loads(metadata["origin"]),
        )
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable encoder file: {error}") from error
    if model.weight_hash() != metadata.get("weights"):
        raise ValueError(f"{path} is damaged: the hash of its arrays differs from the stored one")
    return replace(model, variables=jax.device_put(model.variables))


def _check_imported(tree: Any) -> None:
    """Raise `ValueError` if a config in a file would import a module outside this package."""
    if isinstance(tree, dict):
        module = str(tree.get("kind", "vrl_jax.")).partition(":")[0]
        if not module.startswith("vrl_jax.") and module not in sys.modules:
            raise ValueError(f"it needs the module {module}: import it first, if you trust it")
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            _check_imported(part)


def _how_to_convert(path: AnyPath) -> str:
    out = path.with_name(f"{path.name.partition('.')[0]}.vrl.safetensors")
    return f"convert it first: python -m vrl_jax.convert {path} --out={out}"
