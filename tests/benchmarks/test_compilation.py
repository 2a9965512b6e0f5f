import subprocess
import sys

import jax
import jax.numpy as jnp

from benchmarks.compilation import count_operations, processor_time


def test_operations_belong_to_the_innermost_part_and_a_loop_counts_once():
    double = jax.jit(lambda x: jnp.sin(x) + 1.5)

    def step(x):
        with jax.named_scope("loss"):
            x = jnp.cos(double(double(x)))
            with jax.named_scope("koopman"):
                x = jax.lax.fori_loop(0, 9, lambda i, x: jnp.tanh(x), x)
        with jax.named_scope("update"):
            return jax.lax.cond(x.sum() > 0, jnp.exp, jnp.log, x)

    count = count_operations(jax.jit(step).lower(jnp.ones(3)).as_text("hlo", debug_info=True))
    arithmetic = jax.jit(lambda x: jnp.sin(x) + 1.5).lower(jnp.ones(3)).as_text("hlo")
    calls = 2 * sum(arithmetic.count(f" {name}(") for name in ("sine", "broadcast", "add"))
    assert count["loss"] == calls + 1
    assert count["koopman"] >= 3  # tanh, the counter and its bound, of nine iterations
    assert count["koopman"] < 9
    assert count["update"] >= 4


def test_processor_time_includes_processes_that_ended():
    start = processor_time()
    work = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert processor_time() - start > 0.25
