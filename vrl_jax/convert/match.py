"""From their arrays to our variables and back: the same numbers, other names and axes."""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vrl_jax.convert.names import LAYOUTS, Layout
from vrl_jax.methods.network import EncoderConfig

Arrays = Mapping[str, np.ndarray]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
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
    named = their_names(encoder, layout)
    _check(theirs, dict(named.values()), encoder)
    flat = {ours: _to_ours(theirs[name]) for ours, (name, _) in named.items()}
    used = {prefix + name for name in theirs}
    left_out = sorted(name for name in arrays.keys() - used if not name.endswith(COUNTER))
    return encoder, unflatten_dict(flat, sep="/"), left_out


def to_theirs(
    encoder: EncoderConfig, variables: Mapping[str, Any], layout: Layout
) -> dict[str, np.ndarray]:
    """Return the arrays that PyTorch's `load_state_dict` takes for the encoder."""
    flat = flatten_dict(variables, sep="/")
    arrays = {}
    for ours, (name, _) in their_names(encoder, layout).items():
        array = np.asarray(flat[ours])
        arrays[name] = array.transpose(4, 3, 0, 1, 2) if array.ndim == 5 else array
        if name.endswith("running_var"):
            arrays[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return arrays


@functools.cache
def their_names(encoder: EncoderConfig, layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the name and shape that each of our arrays has in theirs."""
    clips = jnp.zeros((1, 8, 32, 32, 3))
    module, key = encoder.module(), jax.random.key(0)
    ours = flatten_dict(jax.eval_shape(lambda: module.init(key, clips, False)), sep="/")
    named = {}
    for path, leaf in sorted(ours.items()):
        module_path, _, name = path.partition("/")[2].rpartition("/")
        shape = leaf.shape if len(leaf.shape) < 5 else (*leaf.shape[:2:-1], *leaf.shape[:3])
        named[path] = f"{layout.rename(module_path)}.{LEAVES[name]}", shape
    return named


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


def _to_ours(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float32)
    return array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array


def _some(names: Collection[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
