"""Functions of the library as single programs: eagerly, each of their operations compiles."""

import inspect
from collections.abc import Callable

import jax


def jitted(function: Callable, *arrays: str) -> Callable:
    """Return the function under `jit`, its keyword-only arguments static except those named."""
    static = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in arrays
    ]
    return jax.jit(function, static_argnames=static)
