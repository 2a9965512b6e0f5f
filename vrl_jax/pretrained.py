"""An encoder to go on with: `encoder = pretrained.load("runs/mine"); encoder(clips).clip`.

It comes from a run's checkpoints, or from one `.safetensors` file: arrays named `params/...` and
`batch_stats/...`, and in the file's metadata what they mean. `python -m vrl_jax.convert` makes such
files, from PyTorch's weights or from a run. Both may lie on an object store, `gs://bucket/...`.
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

TORCH_SUFFIXES = (".pt", ".pth", ".tar")


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its weights, and where they come from.

    Attributes:
      encoder: the network.
      augment: the input that the weights expect: its size, mean and standard deviation.
      step: of training; 0 where it is not known.
      variables: {"params": ..., "batch_stats": ...}, for `encoder.module()`.
      origin: what a result should say of the weights, as JSON: a run's method, framework and step,
        or a converted file's layout and SHA-256.
      experiment: the run's config; None if the weights come from a file.
    """

    encoder: EncoderConfig
    augment: Augment
    step: int
    variables: dict[str, Any]
    origin: dict[str, Any]
    experiment: Experiment | None = None

    def __call__(self, views: Float[Array, "b t h w 3"]) -> Features:
        """Encode clips that are prepared as evaluation does, with fixed statistics."""
        return self.encoder.module().apply(self.variables, views, False)

    def prepare(self, clips: UInt8[np.ndarray, "b t h w 3"]) -> Float[Array, "b t s s 3"]:
        """Return decoded clips as evaluation sees them: their central square, normalised."""
        return center_view(jnp.asarray(clips), self.augment)

    def parameters(self) -> int:
        """Count the trained numbers; running statistics are none."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def weights(self) -> str:
        """Return the hash of the weights and statistics, as results name it."""
        tree = {"params": self.variables["params"], "stats": self.variables["batch_stats"]}
        return provenance.weight_hash(tree)


def init_untrained(
    encoder: EncoderConfig, augment: Augment, frames: int, seed: int = 0
) -> Pretrained:
    """Return an encoder as it is before any training: what trained ones are compared with.

    Args:
      encoder: the network.
      augment: its input.
      frames: of a clip.
      seed: of the weights.
    """
    clip = jnp.zeros((1, frames, augment.size, augment.size, 3))
    start = jax.jit(encoder.module().init, static_argnums=2)(jax.random.key(seed), clip, False)
    return Pretrained(encoder, augment, 0, {"batch_stats": {}, **start}, {})


def load(path: str | AnyPath, step: int | None = None) -> Pretrained:
    """Return the encoder of a run's folder, or of a file that `save` wrote.

    Args:
      path: the folder or the file.
      step: which of a run's checkpoints; the newest by default.

    Raises:
      ValueError: there is no run and no such file, no such checkpoint, a file of PyTorch's weights,
        or one that is damaged.
    """
    path = remote_paths.to_path(path)
    if path.suffix in TORCH_SUFFIXES:
        raise ValueError(f"{path} is a PyTorch file, {_how_to_convert(path)}")
    if path.suffix == ".safetensors":
        if step is not None:
            raise ValueError(f"{path} holds one encoder: step must be None, got {step}")
        return _load_file(path)
    described = path / "config.json"
    if not remote_paths.is_file(described):
        raise ValueError(f"{path} holds no run: there is no {described}")
    experiment = config.build(json.loads(described.read_text()))
    if not isinstance(experiment, Experiment):
        kind = type(experiment).__name__
        raise ValueError(f"{path} holds no run of pretraining: its config is that of {kind}")
    step, variables = restore_encoder(path / CHECKPOINTS, step)
    return from_run(experiment, step, jax.device_put(variables))


def from_run(experiment: Experiment, step: int, variables: dict[str, Any]) -> Pretrained:
    """Return the encoder of a run at a step, given its weights and statistics."""
    origin = {
        "method": type(experiment.method).__name__,
        "framework": experiment.framework_name,
        "step": step,
    }
    return Pretrained(experiment.encoder, experiment.augment, step, variables, origin, experiment)


def save(path: str | pathlib.Path, pretrained: Pretrained) -> None:
    """Write an encoder as one `.safetensors` file that `load` reads."""
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"an encoder is written to a .safetensors file, got {path}")
    flat = flatten_dict(jax.tree.map(np.asarray, pretrained.variables), sep="/")
    about = {
        "encoder": config.describe(pretrained.encoder).to_json(),
        "augment": config.describe(pretrained.augment).to_json(),
        "step": str(pretrained.step),
        "origin": json.dumps(pretrained.origin),
        "weights": pretrained.weights(),
    }
    save_file({name: np.array(array, order="C") for name, array in flat.items()}, path, about)


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
    """Return the encoder in a copy of `path`, by which errors call it."""
    try:
        with safetensors.safe_open(copy, "np") as file:
            about = file.metadata() or {}
            if "encoder" not in about:
                raise ValueError(
                    f"{path} does not say which encoder it holds, as PyTorch's files do not: "
                    f"{_how_to_convert(path)}"
                )
            flat = {name: file.get_tensor(name) for name in file.keys()}
        encoder, augment = (json.loads(about[part]) for part in ("encoder", "augment"))
        _require_known([encoder, augment])
        found = Pretrained(
            encoder=config.build(encoder),
            augment=config.build(augment),
            step=int(about["step"]),
            variables={"batch_stats": {}, **unflatten_dict(flat, sep="/")},
            origin=json.loads(about["origin"]),
        )
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no readable .safetensors file of ours: {error}") from error
    if found.weights() != about["weights"]:
        raise ValueError(f"{path} is damaged: its arrays are not those that it was written with")
    return replace(found, variables=jax.device_put(found.variables))


def _require_known(tree: Any) -> None:
    """Raise `ValueError` where a file names a class whose module would be imported for it alone."""
    if isinstance(tree, dict):
        module = str(tree.get("kind", "vrl_jax.")).partition(":")[0]
        if not module.startswith("vrl_jax.") and module not in sys.modules:
            raise ValueError(f"it wants the module {module}: import that first, if you trust it")
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            _require_known(part)


def _how_to_convert(path: AnyPath) -> str:
    out = path.with_name(f"{path.name.partition('.')[0]}.vrl.safetensors")
    return f"convert it first: python -m vrl_jax.convert {path} --out={out}"
