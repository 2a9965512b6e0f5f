"""PyTorch state dicts as Flax variables, and back: equal values, other names and axes."""

import functools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vrl_jax.convert.layer_kinds import KINDS, record_kinds
from vrl_jax.convert.transformer_layouts import TRANSFORMER_LAYOUTS
from vrl_jax.convert.weight_layouts import LAYOUTS, Arrays, Layout
from vrl_jax.methods.network import EncoderConfig

COUNTER = "num_batches_tracked"  # PyTorch reads it only if momentum is None
LISTED_NAMES = 5


def match_layout(names: Collection[str], prefix: str | None = None) -> tuple[Layout, str]:
    """Return the layout of the parameter names in a file, and their common prefix.

    If a file holds several encoders, `encoder_q` is selected by default.

    Raises:
      ValueError: the names match no layout, several encoders match, or none has the prefix.
    """
    for layout in (*LAYOUTS, *TRANSFORMER_LAYOUTS):
        anchors = [name for name in names if f".{name}".endswith(f".{layout.anchor}")]
        prefixes = [name.removesuffix(layout.anchor) for name in anchors]
        if not prefixes or not any(name.endswith(layout.companion) for name in names):
            continue
        if prefix is None:
            prefixes = [each for each in prefixes if "encoder_q." in each] or prefixes
            if len(prefixes) > 1:
                raise ValueError(f"the file holds several encoders: choose a prefix of {prefixes}")
            (prefix,) = prefixes
        if prefix not in prefixes:
            raise ValueError(
                f"prefix must be that of an encoder in the file, one of {prefixes}, got {prefix!r}"
            )
        return layout, prefix
    layouts = ", ".join(
        f"{layout.family}'s {layout.network}" for layout in (*LAYOUTS, *TRANSFORMER_LAYOUTS)
    )
    raise ValueError(f"parameter names must be those of {layouts}; got {shorten_names(names)}")


def from_torch(
    arrays: Arrays, layout: Layout, prefix: str, config: Mapping[str, Any] | None = None
) -> tuple[EncoderConfig, dict[str, Any], list[str]]:
    """Return the encoder of a PyTorch state dict, its variables, and the names of unused arrays.

    Args:
      arrays: the state dict.
      layout: of its names.
      prefix: of the encoder's names.
      config: the config.json beside it, if there is one.

    Raises:
      ValueError: arrays are missing, belong to no layer of the encoder, have another shape or are
        not finite.
    """
    heads = tuple(f"{head}." for head in layout.heads)
    outside = tuple(f"{part}." for part in layout.outside)
    inside = {
        name: name.removeprefix(prefix)
        for name in arrays
        if name.startswith((prefix, *outside)) and not name.endswith(COUNTER)
    }
    layout.check({short: arrays[name] for name, short in inside.items()})
    inside = {name: short for name, short in inside.items() if not f"{short}.".startswith(heads)}
    stored = {short: arrays[name] for name, short in inside.items()}
    used = layout.prepare(stored)
    encoder = layout.encoder(used, {**layout.settings(stored), **(config or {})})
    expected = torch_arrays(encoder, layout)
    _check(used, {array.name: array.shape for array in expected.values()}, encoder)
    flat = {
        path: np.asarray(used[array.name], np.float32).transpose(np.argsort(array.axes))
        for path, array in expected.items()
    }
    damaged = [expected[path].name for path, array in flat.items() if not np.isfinite(array).all()]
    if damaged:
        raise ValueError(
            f"arrays must be finite, got NaN or infinity in {shorten_names(damaged)}: the network "
            "has diverged, or its values overflow 16 bits"
        )
    unused = sorted(name for name in arrays.keys() - inside if not name.endswith(COUNTER))
    return encoder, unflatten_dict(flat, sep="/"), unused


def to_torch(
    encoder: EncoderConfig, variables: Mapping[str, Any], layout: Layout
) -> dict[str, np.ndarray]:
    """Return the contiguous arrays of an encoder for PyTorch's `load_state_dict`."""
    flat = flatten_dict(variables, sep="/")
    arrays = {}
    for path, (name, _, axes) in torch_arrays(encoder, layout).items():
        # safetensors writes the memory of an array, whatever its strides
        arrays[name] = np.array(np.asarray(flat[path]).transpose(axes), order="C")
        if name.endswith("running_var"):
            arrays[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return arrays


class TorchArray(NamedTuple):
    """An array of an encoder as PyTorch stores it.

    Attributes:
      name: in the state dict.
      shape: in the state dict.
      axes: the permutation of Flax's axes that gives PyTorch's.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


@functools.cache
def torch_arrays(encoder: EncoderConfig, layout: Layout) -> dict[str, TorchArray]:
    """Return how PyTorch stores each array of an encoder, by the array's path in Flax.

    Raises:
      ValueError: an array belongs to a layer whose kind is not in `layer_kinds.KINDS`.
    """
    side = getattr(encoder, "size", 2 * getattr(encoder, "patch", 16))
    clips = jax.ShapeDtypeStruct((1, getattr(encoder, "frames", 8), side, side, 3), jnp.float32)
    init = functools.partial(encoder.module().init, train=False)
    with record_kinds() as kinds:
        leaves = flatten_dict(jax.eval_shape(init, jax.random.key(0), clips), sep="/")
    arrays = {}
    for path, leaf in sorted(leaves.items()):
        layer, _, name = path.partition("/")[2].rpartition("/")
        if layer not in kinds:
            raise ValueError(
                f"{path} of {encoder} must be an array of a layer with a known kind "
                f"({', '.join(each.__name__ for each in KINDS)}): add the layer's class to "
                "vrl_jax.convert.layer_kinds.KINDS"
            )
        try:
            axes = kinds[layer].axes_of(name, leaf.ndim)
        except ValueError as error:
            raise ValueError(f"{path} of {encoder}: {error}") from error
        torch_name = f"{layout.rename(layer)}.{kinds[layer].names[name]}"
        arrays[path] = TorchArray(torch_name, tuple(leaf.shape[axis] for axis in axes), axes)
    return arrays


def _check(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], encoder: EncoderConfig) -> None:
    problems = []
    if missing := sorted(shapes.keys() - arrays.keys()):
        problems.append(f"missing: {shorten_names(missing)}")
    if unknown := sorted(arrays.keys() - shapes.keys()):
        problems.append(f"unknown: {shorten_names(unknown)}")
    problems += [
        f"{name} has shape {arrays[name].shape}, must have {shapes[name]}"
        for name in sorted(shapes.keys() & arrays.keys())
        if arrays[name].shape != shapes[name]
    ][:LISTED_NAMES]
    if problems:
        raise ValueError(f"arrays must be the weights of {encoder}, got {'; '.join(problems)}")


def shorten_names(names: Collection[str]) -> str:
    """Return the first few names as text, with the number of the others."""
    more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
    return ", ".join(list(names)[:LISTED_NAMES]) + more
