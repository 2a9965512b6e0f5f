"""Explicit references the encoders are held against, and variables that cost no `init`."""

import jax
import numpy as np


def convolve(x, kernel, strides):
    """Convolve one output voxel at a time; every axis is padded by (k-1)//2 on both sides."""
    pads = [((k - 1) // 2,) * 2 for k in kernel.shape[:3]]
    x = np.pad(x.astype(np.float64), [(0, 0), *pads, (0, 0)])
    size = [
        (n - k) // s + 1 for n, k, s in zip(x.shape[1:4], kernel.shape[:3], strides, strict=True)
    ]
    out = np.zeros((len(x), *size, kernel.shape[-1]))
    for b, t, h, w in np.ndindex(len(x), *size):
        for i, j, k in np.ndindex(kernel.shape[:3]):
            voxel = x[b, t * strides[0] + i, h * strides[1] + j, w * strides[2] + k]
            out[b, t, h, w] += voxel @ kernel[i, j, k]
    return out


def greatest(x, window, strides, before, after):
    """Take the maximum of one window at a time, of a map padded by so much on each side."""
    pads = [(0, 0), *zip(before, after, strict=True), (0, 0)]
    x = np.pad(x.astype(np.float64), pads, constant_values=-np.inf)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:4], window, strides, strict=True)]
    out = np.zeros((len(x), *size, x.shape[-1]))
    for t, h, w in np.ndindex(*size):
        start = t * strides[0], h * strides[1], w * strides[2]
        voxels = [slice(i, i + k) for i, k in zip(start, window, strict=True)]
        out[:, t, h, w] = x[:, *voxels].max((1, 2, 3))
    return out


def normalise(x, params, stats, epsilon=1e-5):
    """Apply batch normalisation by running statistics."""
    scaled = (x - stats["mean"]) / np.sqrt(stats["var"] + epsilon)
    return scaled * params["scale"] + params["bias"]


def shapes_of(module, clips):
    """Trace `module` on clips of shape `clips`: the shapes of its output and of its variables."""
    spec = jax.ShapeDtypeStruct(clips, np.float32)
    key = jax.random.key(0)
    return jax.eval_shape(lambda x: module.init_with_output(key, x, False), spec)


def fill(module, clips, rng):
    """Draw generic variables for `module` in the shapes that clips of shape `clips` give them."""

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 4.0
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module, clips)[1])


def count(tree):
    """Count the numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def multiply_adds(module, clips):
    """Count those of the convolutions and matrix products of `module` on clips of shape `clips`."""
    spec, key = jax.ShapeDtypeStruct(clips, np.float32), jax.random.key(0)
    return _count_products(jax.make_jaxpr(lambda x: module.init_with_output(key, x, False))(spec))


def _count_products(jaxpr):
    total = 0
    for step in jaxpr.eqns:
        if step.primitive.name == "conv_general_dilated":
            kernel, axes = step.invars[1].aval, step.params["dimension_numbers"].rhs_spec
            total += step.outvars[0].aval.size * kernel.size // kernel.shape[axes[0]]
        elif step.primitive.name == "dot_general":
            (contracted, _), _ = step.params["dimension_numbers"]
            lengths = [step.invars[0].aval.shape[axis] for axis in contracted]
            total += step.outvars[0].aval.size * int(np.prod(lengths))
        inner = (value for value in step.params.values() if hasattr(value, "eqns"))
        total += sum(map(_count_products, inner))
    return total
