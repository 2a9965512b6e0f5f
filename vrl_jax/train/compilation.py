"""Compiling early, once, and not again at the next start."""

import os
import pathlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def enable_cache() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless it has a folder already.

    That is `$XDG_CACHE_HOME/vrl_jax` or `~/.cache/vrl_jax`; `JAX_COMPILATION_CACHE_DIR` names
    another (on a pod one that all its next machines see, `gs://...` too), and
    `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
    """
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "vrl_jax"))


class BackgroundCompile:
    """A traced function that is compiled in the background; the first call waits for that.

    It takes the shapes it was traced for and refuses all others: nothing compiles a second time.

    Args:
      traced: what to compile.
      say: told how long it took and when the first call came back.
    """

    def __init__(self, traced: jax.stages.Traced, say: Callable[[str], None]):
        self._began, self._say, self._called = time.perf_counter(), say, False
        pool = ThreadPoolExecutor(1, "compile")
        self._compiled = pool.submit(self._compile, traced)
        pool.shutdown(wait=False)

    def __call__(self, *args: Any) -> Any:
        """Return what the compiled function returns."""
        compiled, seconds = self._compiled.result()
        found = compiled(*args)
        if not self._called:
            self._called = True
            jax.block_until_ready(found)
            whole = time.perf_counter() - self._began
            self._say(f"first step after {whole:.1f} s, {seconds:.1f} s of them to compile")
        return found

    def _compile(self, traced: jax.stages.Traced) -> tuple[jax.stages.Compiled, float]:
        compiled = traced.lower().compile()
        return compiled, time.perf_counter() - self._began
