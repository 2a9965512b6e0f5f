"""Compilation in the background, once, and the persistent cache."""

import itertools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import lru_cache

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.train.compilation import BackgroundCompile, write_whole_entries
from vrl_jax.train.sharding import make_mesh, shard_rows

COMPILED = "/jax/core/compile/backend_compile_duration"


def tiny():
    described = synthetic_bod.get_config()
    described.encoder.widths, described.encoder.strides = (4, 6), (4, 2)
    described.framework.hidden, described.method.dim, described.method.forecast_grid = 8, 4, 1
    described.sampling.frames, described.train.batch, described.train.steps = 8, 8, 4
    described.augment.jitter = described.augment.gray = described.augment.blur = 0.0
    return config.build(described)


@pytest.fixture
def compilations():
    events = []

    def listen(event, seconds, **_):
        if event == COMPILED:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_step_compiles_once_whatever_the_step_and_the_state(compilations):
    mesh = make_mesh()
    program = make_program(tiny(), 40, mesh)
    lines, state = [], program.init()
    step = BackgroundCompile(program.step, lines.append)
    rng = np.random.default_rng(0)
    for number in itertools.count(1):
        clips = rng.integers(256, size=program.clips.shape, dtype=np.uint8)
        state, metrics = step(state, shard_rows(mesh, clips))
        jax.block_until_ready(metrics)
        if number == 1:
            assert compilations
            compilations.clear()
        if number == 4:
            break
    assert int(state.step) == 4 and not compilations
    (line,) = lines
    whole, compiling = map(float, re.findall(r"([\d.]+) s", line))
    assert 0 < compiling <= whole


def test_what_another_shape_would_recompile_is_refused():
    step = BackgroundCompile(jax.jit(lambda x: x + 1).trace(jnp.zeros(3)), print)
    np.testing.assert_array_equal(step(jnp.ones(3)), 2)
    with pytest.raises(TypeError, match="float32"):
        step(jnp.ones(4))


def test_what_cannot_be_compiled_fails_where_it_is_called():
    nowhere = jax.ffi.ffi_call("no_such_function", jax.ShapeDtypeStruct((3,), jnp.float32))
    step = BackgroundCompile(jax.jit(nowhere).trace(jnp.zeros(3)), print)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_function"):
        step(jnp.zeros(3))


SCRIPT = """
import jax
from vrl_jax.train.compilation import enable_cache
enable_cache()
jax.jit(lambda x: x @ x)(jax.numpy.ones((4, 4))).block_until_ready()
"""


@pytest.mark.parametrize("chosen", [False, True])
def test_programs_are_kept_in_the_users_cache_or_the_chosen_folder(tmp_path, chosen):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "own")
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
    used, other = tmp_path / "home" / "vrl_jax", tmp_path / "own"
    if chosen:
        used, other = other, used
    assert list(used.iterdir()) and not other.exists()


def test_entries_of_the_cache_appear_whole(tmp_path, monkeypatch):
    write_whole_entries()
    cache = lru_cache.LRUCache(str(tmp_path), max_size=-1)
    seen, write = [], type(cache.path).write_bytes

    def write_half(path, value):
        write(path, value[: len(value) // 2])
        seen.append(cache.get("key"))
        return write(path, value)

    monkeypatch.setattr(type(cache.path), "write_bytes", write_half)
    cache.put("key", b"a program")
    assert seen == [None] and cache.get("key") == b"a program"
    cache.put("key", b"a program")  # by another process as well
    assert cache.get("key") == b"a program"

    def fail(path, value):
        write(path, value[:3])
        raise OSError("no space")

    monkeypatch.setattr(type(cache.path), "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        cache.put("other", b"a program")
    assert cache.get("other") is None and len(list(tmp_path.iterdir())) == 1
