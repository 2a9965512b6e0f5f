"""Functions of the library as single programs: eagerly, each of their operations compiles."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import jax
import pytest


def jitted(function: Callable, *arrays: str) -> Callable:
    """Return the function under `jit`, its keyword-only arguments static except those named."""
    static = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in arrays
    ]
    return jax.jit(function, static_argnames=static)


@contextmanager
def encoders_compiled_once(module: ModuleType) -> Iterator[None]:
    """Let all commands that use `module.compile_encoder` share the compiled encoders."""
    compile_encoder, compiled = module.compile_encoder, {}

    def find(model, pick):
        key = model.encoder, model.augment, model.weight_hash(), pick.__code__
        if key not in compiled:
            compiled[key] = compile_encoder(model, pick)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compile_encoder", find)
        yield
