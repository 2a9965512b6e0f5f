"""Trained encoders: `encoder = pretrained.load("runs/mine"); encoder(clips).clip`.

An encoder is loaded from the checkpoints of a run or from a `.safetensors` file with arrays
`params/...` and `batch_stats/...` and the config in its metadata. `python -m vrl_jax.convert`
writes such files from PyTorch weights or from a run, and `python -m vrl_jax.export` a folder with
one and the config of the run. All may be on an object store, `gs://...`.
"""

import hashlib
import inspect
import json
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.encoders.external import External
from vrl_jax.encoders.layers import pool_to_segments
from vrl_jax.experiment import Experiment
from vrl_jax.methods.base import Method
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.report.remote_runs import CHECKPOINTS
from vrl_jax.train import provenance
from vrl_jax.train.checkpoint import restore_encoder, restore_weights
from vrl_jax.types import Features, TrainLength

TORCH_SUFFIXES = (".pt", ".pth", ".pyth", ".ckpt", ".bin", ".tar")
EXPORTED = "encoder.safetensors"  # in a folder of `vrl_jax.export`
FOREIGN_SUFFIXES = (*TORCH_SUFFIXES, ".npz")


class MethodParts(NamedTuple):
    """The embeddings that the method of a run makes besides its encoder's features.

    Attributes:
      apply: (weights, views f32[n t s s 3]) -> embeddings f32[n d] by name.
      weights: parameters and state of the method.
    """

    apply: Callable[[Any, Array], Mapping[str, Array]]
    weights: Any

    def widths(self, views: tuple[int, ...]) -> dict[str, int]:
        """Return the width of each embedding of views of a shape, by name."""
        shapes = jax.eval_shape(self.apply, self.weights, jax.ShapeDtypeStruct(views, "float32"))
        return {name: shapes[name].shape[1] for name in sorted(shapes)}

    def joined(self, weights: Any, views: Float[Array, "n t s s 3"]) -> Float[Array, "n d"]:
        """Return the embeddings side by side, in the order of `widths`."""
        parts = self.apply(weights, views)
        return jnp.concatenate([parts[name] for name in sorted(parts)], axis=1)


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
      parts: the embeddings of the run's method, where they were asked of `load`.
      sampling: the clips of a run, or those that converted weights expect; None if unknown.
    """

    encoder: EncoderConfig
    augment: Augment
    step: int
    variables: dict[str, Any]
    origin: dict[str, Any]
    experiment: Experiment | None = None
    parts: MethodParts | None = None
    sampling: Sampling | None = None

    def __call__(self, views: Float[Array, "b t h w 3"]) -> Features:
        """Encode clips that were prepared by `prepare`, with running statistics."""
        return self.encoder.module().apply(self.variables, views, False)

    def prepare(self, clips: UInt8[np.ndarray, "b t h w 3"]) -> Float[Array, "b t s s 3"]:
        """Return the central square of decoded clips, resized and normalised as in evaluation."""
        return _center_views(jnp.asarray(clips), self.augment)

    def count_parameters(self) -> int:
        """Return the number of trainable parameters, without running statistics."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def weight_hash(self) -> str:
        """Return the hash of weights and statistics, as in results."""
        tree = {"params": self.variables["params"], "stats": self.variables["batch_stats"]}
        return provenance.weight_hash(tree)


_center_views = jax.jit(center_view, static_argnames="augment")


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


def load(path: str | AnyPath, step: int | None = None, parts: bool = False) -> Pretrained:
    """Return the encoder of a run, of an exported folder or file, or that a function is.

    Args:
      path: folder of the run or of `vrl_jax.export`, a file written by `save`, or "module:name" of
        a function decorated by `vrl_jax.encoders.external.external`.
      step: of the run's checkpoint; the newest by default.
      parts: also load the embeddings that the method of the run makes.

    Raises:
      ValueError: there is no such run, file or checkpoint, the file is damaged or PyTorch's, or
        the method makes no parts.
    """
    if isinstance(path, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", path):
        if step is not None:
            raise ValueError(f"step must be None, since {path} is a function, got {step}")
        if parts:
            raise ValueError(f"{path} is an encoder alone: a function makes no parts")
        return _load_function(path)
    path = remote_paths.to_path(path)
    if parts and remote_paths.is_file(path):
        raise ValueError(f"{path} is an encoder alone: its method's parts are in the run's folder")
    if path.suffix in FOREIGN_SUFFIXES:
        raise ValueError(f"{path} has the names of another library, {_how_to_convert(path)}")
    if path.suffix == ".safetensors":
        if step is not None:
            raise ValueError(f"step must be None, since {path} is not a run, got {step}")
        return _load_file(path)
    if remote_paths.is_file(path):
        suffixes = ", ".join((".safetensors", *FOREIGN_SUFFIXES))
        raise ValueError(f"weight files must end in {suffixes}, got {path}: rename it")
    if remote_paths.is_file(path / EXPORTED):
        model = load(path / EXPORTED, step, parts)
        return replace(model, experiment=load_experiment(path, foreign=True))
    experiment = load_experiment(path)
    step, variables = restore_encoder(path / CHECKPOINTS, step)
    model = from_run(experiment, step, jax.device_put(variables))
    if parts:
        model = replace(model, parts=_load_parts(experiment, path, step))
    return model


def load_experiment(path: str | AnyPath, foreign: bool = False) -> Experiment:
    """Return the settings of a run of pretraining from its folder.

    Args:
      path: the folder.
      foreign: whether others may have written it; then it has no module imported.

    Raises:
      ValueError: there is no such run, or it is one of another version or kind.
    """
    path = remote_paths.to_path(path)
    config_path = path / "config.json"
    if not remote_paths.is_file(config_path):
        raise ValueError(f"{path} is not a run: there is no {config_path}")
    try:
        tree = json.loads(config_path.read_text())
        if "kind" not in tree and "model_type" in tree:
            raise ValueError(f"it is that of transformers, {_how_to_convert(path)}")
        if foreign:
            _check_imported(tree)
        experiment = config.build(tree)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{config_path} is not a config of this version: {error}") from error
    if not isinstance(experiment, Experiment):
        kind = type(experiment).__name__
        raise ValueError(f"{path} must be a run of pretraining, but its config is of type {kind}")
    return experiment


def from_run(experiment: Experiment, step: int, variables: dict[str, Any]) -> Pretrained:
    """Return the encoder of a run from its variables at a step."""
    origin = {
        "method": type(experiment.method).__name__,
        "framework": experiment.framework_name,
        "step": step,
    }
    return Pretrained(
        encoder=experiment.encoder,
        augment=experiment.augment,
        step=step,
        variables=variables,
        origin=origin,
        experiment=experiment,
        sampling=experiment.sampling,
    )


def method_parts(method: Method, params: Any, state: Any) -> MethodParts:
    """Return the embeddings that a method makes, which has `parts`."""
    return MethodParts(lambda weights, views: method.parts(*weights, views), (params, state))


def add_ordered(model: Pretrained, segments: int) -> Pretrained:
    """Return an encoder with one more part, "ordered": frame vectors averaged over segments.

    Args:
      model: the encoder.
      segments: see `pool_to_segments`.
    """
    own, encoder = model.parts, model.encoder

    def apply(weights, views):
        variables, method_weights = weights
        parts = own.apply(method_weights, views) if own else {}
        frames = encoder.module().apply(variables, views, False).frames
        return {**parts, "ordered": pool_to_segments(frames, segments)}

    weights = (model.variables, own.weights if own else None)
    return replace(model, parts=MethodParts(apply, weights))


def _load_parts(experiment: Experiment, path: AnyPath, step: int) -> MethodParts:
    """Return the embeddings of the method of a run."""
    length = TrainLength(steps=10, steps_per_epoch=1)  # of schedules, which no embedding depends on
    method = experiment.method.build(experiment.encoder, experiment.framework, length)
    if method.parts is None:
        kind = type(experiment.method).__name__
        raise ValueError(f"{path}: {kind} makes no embeddings besides the encoder's features")
    side, frames = experiment.augment.size, experiment.sampling.frames
    clips = (experiment.train.batch, len(method.views), frames, side, side, 3)
    like = jax.eval_shape(method.init, jax.random.key(0), jax.ShapeDtypeStruct(clips, "float32"))
    weights = restore_weights(path / CHECKPOINTS, step, like)
    return method_parts(method, *jax.device_put(weights))


def save(path: str | pathlib.Path, pretrained: Pretrained) -> None:
    """Write an encoder to a `.safetensors` file for `load`."""
    path = remote_paths.to_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path}")
    flat = flatten_dict(jax.tree.map(np.asarray, pretrained.variables), sep="/")
    metadata = {
        "encoder": config.describe(pretrained.encoder).to_json(),
        "augment": config.describe(pretrained.augment).to_json(),
        "sampling": pretrained.sampling and config.describe(pretrained.sampling).to_json(),
        "step": str(pretrained.step),
        "origin": json.dumps(pretrained.origin),
        "weights": pretrained.weight_hash(),
    }
    metadata = {name: value for name, value in metadata.items() if value is not None}
    save_file({name: np.array(array, order="C") for name, array in flat.items()}, path, metadata)


def _load_function(path: str) -> Pretrained:
    encoder = External(path)
    clips = encoder.input
    source = inspect.getsource(sys.modules[path.partition(":")[0]])
    origin = {"function": path, "module": hashlib.sha256(source.encode()).hexdigest()}
    for name in clips.weights:
        try:
            with open(name, "rb") as file:
                origin[f"weights {name}"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"weights of {path}: {error}") from error
    encoder.list_layers()  # fails here if it fails, before any video is read
    return Pretrained(
        encoder=encoder,
        augment=Augment(size=clips.size, mean=clips.mean, std=clips.std),
        step=0,
        variables={"params": {}, "batch_stats": {}},
        origin=origin,
        sampling=Sampling(clips.frames, clips.stride, fps=clips.fps),
    )


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
        sampling = json.loads(metadata.get("sampling", "null"))
        _check_imported([encoder, augment, sampling])
        model = Pretrained(
            encoder=config.build(encoder),
            augment=config.build(augment),
            step=int(metadata["step"]),
            variables={"batch_stats": {}, **unflatten_dict(flat, sep="/")},
            origin=json.loads(metadata["origin"]),
            sampling=sampling and config.build(sampling),
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
