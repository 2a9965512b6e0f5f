"""Compilation in the background, and the persistent cache of compiled programs."""

import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax._src import lru_cache  # no public interface


def enable_cache() -> None:
    """Cache compiled programs in the user's cache folder, unless JAX already has a cache folder.

    The folder is `$XDG_CACHE_HOME/vrl_jax` or `~/.cache/vrl_jax`. `JAX_COMPILATION_CACHE_DIR` sets
    another, which may be on an object store (`gs://...`) and which a pod's later machines should
    share. `JAX_ENABLE_COMPILATION_CACHE=false` disables the cache. Processes may share a folder.
    """
    write_whole_entries()
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "vrl_jax"))


def write_whole_entries() -> None:
    """Let entries of JAX's compilation cache appear whole, so that processes can share a folder.

    JAX (0.10 to 0.12) writes them in place: a process that reads one too early warns and compiles.
    """
    put = lru_cache.LRUCache.put

    def put_whole(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
        if "://" in str(cache.path) or cache.eviction_enabled:  # whole objects; a lock
            return put(cache, key, value)
        with tempfile.TemporaryDirectory(prefix="part-", dir=cache.path) as folder:
            put(lru_cache.LRUCache(folder, max_size=-1), key, value)
            for name in os.listdir(folder):
                os.replace(os.path.join(folder, name), os.path.join(cache.path, name))

    if put.__name__ != put_whole.__name__:
        lru_cache.LRUCache.put = put_whole


class BackgroundCompile:
    """A traced function that compiles in the background; the first call waits for it.

    It accepts only the shapes that it was traced for, so it never compiles again.

    Args:
      traced: the function to compile.
      log: receives one line with the compile time and the time until the first result.
    """

    def __init__(self, traced: jax.stages.Traced, log: Callable[[str], None]):
        self._began, self._log, self._called = time.perf_counter(), log, False
        pool = ThreadPoolExecutor(1, "compile")
        self._compiled = pool.submit(self._compile, traced)
        pool.shutdown(wait=False)

    def __call__(self, *args: Any) -> Any:
        """Call the compiled function."""
        compiled, seconds = self._compiled.result()
        outputs = compiled(*args)
        if not self._called:
            self._called = True
            jax.block_until_ready(outputs)
            total = time.perf_counter() - self._began
            self._log(f"first step after {total:.1f} s, including {seconds:.1f} s to compile")
        return outputs

    def _compile(self, traced: jax.stages.Traced) -> tuple[jax.stages.Compiled, float]:
        compiled = traced.lower().compile()
        return compiled, time.perf_counter() - self._began
