"""From their arrays to our variables and back: the same numbers, other names and axes."""

import functools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vrl_jax.convert.layer_kinds import KINDS, record_kinds
from vrl_jax.convert.names import LAYOUTS, Layout
from vrl_jax.methods.network import EncoderConfig

Arrays = Mapping[str, np.ndarray]

COUNTER = "num_batches_tracked"  # PyTorch reads it only where momentum is None
SHOWN = 5


def match_layout(names: Collection[str], prefix: str | None = None) -> tuple[Layout, str]:
    """Return the layout of a file's names, and what precedes them.

    Of several encoders in one file `encoder_q` is taken, unless `prefix` chooses another.

    Raises:
      ValueError: no layout is known that has such names, there are several encoders, or none at
        the prefix.
    """
    for layout in LAYOUTS:
        ends = [name for name in names if f".{name}".endswith(f".{layout.anchor}")]
        found = [name.removesuffix(layout.anchor) for name in ends]
        if not found or not any(name.endswith(layout.beside) for name in names):
            continue
        if prefix is None:
            found = [each for each in found if "encoder_q." in each] or found
            if len(found) > 1:
                raise ValueError(f"there are several encoders: choose one of {found} as prefix")
            (prefix,) = found
        if prefix not in found:
            raise ValueError(f"there is no encoder at the prefix {prefix!r}: choose one of {found}")
        return layout, prefix
    known = ", ".join(f"{layout.family}'s {layout.network}" for layout in LAYOUTS)
    raise ValueError(f"these are no names that are known, such as {_some(names)}; known: {known}")


def to_ours(
    arrays: Arrays, layout: Layout, prefix: str
) -> tuple[EncoderConfig, dict[str, Any], list[str]]:
    """Return the encoder that the arrays are for, its variables, and the names left out.

    Raises:
      ValueError: arrays that are missing, that no module of the encoder has, or of another shape.
    """
    heads = tuple(f"{head}." for head in layout.heads)
    inside = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
    theirs = {
        name: x
        for name, x in inside.items()
        if not (name.startswith(heads) or name.endswith(COUNTER))
    }
    encoder = layout.encoder(theirs)
    expected = torch_arrays(encoder, layout)
    _check(theirs, {array.name: array.shape for array in expected.values()}, encoder)
    flat = {
        path: np.asarray(theirs[array.name], np.float32).transpose(np.argsort(array.axes))
        for path, array in expected.items()
    }
    used = {prefix + name for name in theirs}
    left_out = sorted(name for name in arrays.keys() - used if not name.endswith(COUNTER))
    return encoder, unflatten_dict(flat, sep="/"), left_out


def to_theirs(
    encoder: EncoderConfig, variables: Mapping[str, Any], layout: Layout
) -> dict[str, np.ndarray]:
    """Return the arrays that PyTorch's `load_state_dict` takes for the encoder."""
    flat = flatten_dict(variables, sep="/")
    arrays = {}
    for path, (name, _, axes) in torch_arrays(encoder, layout).items():
        arrays[name] = np.asarray(flat[path]).transpose(axes)
        if name.endswith("running_var"):
            arrays[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return arrays


class TorchArray(NamedTuple):
    """One of our arrays as PyTorch stores it.

    Attributes:
      name: its name there.
      shape: its shape there.
      axes: the permutation of our axes that gives theirs.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


@functools.cache
def torch_arrays(encoder: EncoderConfig, layout: Layout) -> dict[str, TorchArray]:
    """Return the name, shape and axes in PyTorch of each of our arrays.

    Raises:
      ValueError: an array of a layer whose kind is not in `layer_kinds.KINDS`.
    """
    clips = jnp.zeros((1, 8, 32, 32, 3))
    module, key = encoder.module(), jax.random.key(0)
    with record_kinds() as kinds:
        leaves = flatten_dict(jax.eval_shape(lambda: module.init(key, clips, False)), sep="/")
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
    wrong = []
    if missing := sorted(shapes.keys() - arrays.keys()):
        wrong.append(f"missing: {_some(missing)}")
    if unknown := sorted(arrays.keys() - shapes.keys()):
        wrong.append(f"unknown: {_some(unknown)}")
    wrong += [
        f"{name} has shape {arrays[name].shape}, wanted {shapes[name]}"
        for name in sorted(shapes.keys() & arrays.keys())
        if arrays[name].shape != shapes[name]
    ][:SHOWN]
    if wrong:
        raise ValueError(f"these are no weights of {encoder}: {'; '.join(wrong)}")


def _some(names: Collection[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
