"""Eight simulated devices, shape-checked signatures, a warm compilation cache, clips to read."""

import functools
import gc
import os
import pathlib

import numpy as np
import pytest

from tests import quick_xla

gc.set_threshold(100_000, 20, 20)  # imports and traces make many objects, and little garbage
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + f" --xla_force_host_platform_device_count=8 {quick_xla.FLAGS}"
    + " --xla_cpu_collective_call_terminate_timeout_seconds=300"
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".jax_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

VIDEOS = pathlib.Path(__file__).parents[2] / "shared" / "videos"


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests; that which only distributes them imports nothing."""
    if not config.getoption("numprocesses") or hasattr(config, "workerinput"):
        _import_libraries()


def _import_libraries() -> None:
    # JAX reads the variables above at import. What is first imported under the hook is compiled
    # anew.
    import grain  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import tensorboardX  # noqa: F401
    from absl import flags
    from jaxtyping import install_import_hook

    import tests.typecheck  # noqa: F401  (the hook finds it by name)

    install_import_hook("vrl_jax", "tests.typecheck.check")

    from vrl_jax.train.compilation import write_whole_entries

    write_whole_entries()  # the test processes share a cache
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's worker processes read absl flags


def pytest_collection_finish() -> None:
    """Leave what is loaded out of garbage collections, which would visit it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def videos() -> pathlib.Path:
    """The folder of real clips; tests that need them are skipped where it is absent."""
    if not VIDEOS.is_dir():
        pytest.skip(f"real clips are not at {VIDEOS}")
    return VIDEOS


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def commit():
    """Ask Git once, and not for every result."""
    from vrl_jax.train import provenance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "source_commit", functools.cache(provenance.source_commit))
        yield
