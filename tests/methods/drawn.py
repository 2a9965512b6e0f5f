"""Parameters for tests, drawn by NumPy: a method's own `init` takes seconds to compile."""

import jax
import numpy as np


def normal(*shape):
    """Return normal numbers, the same at each call."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def draw_weights(method, clips):
    """Return (params, state) of a method's shapes: random kernels, and a state of ones."""
    rng = np.random.default_rng(1)

    def draw(path, x):
        if x.ndim == 1:
            return np.full(x.shape, path[-1].key == "scale", x.dtype)  # else a bias
        return (rng.normal(size=x.shape) / np.prod(x.shape[:-1]) ** 0.5).astype(x.dtype)

    params, state = jax.eval_shape(method.init, jax.random.key(1), clips)
    ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state)
    return jax.tree.map_with_path(draw, params), ones
