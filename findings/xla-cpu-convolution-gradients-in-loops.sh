#!/usr/bin/env bash
# JAX 0.10.2, Python 3.11, Linux on x86-64
#
# On CPU, the gradient of a channels-last convolution for its kernel takes tens of times as long inside
# `lax.scan` as outside. XLA brings it into the order of axes that its fast convolution needs in the
# entry computation only; in the body of a loop the order stays, and plain loops compute it. The
# convolution itself is as fast in a loop as outside, so only training shows the difference, such as
# gradient accumulation over micro-batches.
# For channels-first convolutions this is known: https://github.com/jax-ml/jax/issues/12868
#
# Output (the ratio depends on the processor):
#   convolution: b01f_01io->b01f
#   in a loop: b01f_01io->b01f
#   gradient: b01f_01io->b01f
#   in a loop: b01f_01io->b01f, f01b_i01o->01bf
#   in a loop the gradient takes 41 times as long
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2"

cat > "$folder/try.py" <<'PYTHON'
import re
import time

import jax
import jax.numpy as jnp
from jax import lax

x, kernel = jnp.ones((16, 16, 16, 64)), jnp.ones((3, 3, 64, 128))


def loss(kernel, x):
    names = ("NHWC", "HWIO", "NHWC")
    return jnp.sum(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names) ** 2)


def twice(function):
    """Call a function two times in a loop, and add."""

    def add(total, scale):
        return total + function(kernel, scale * x), None

    return lambda kernel, x: lax.scan(add, 0 * function(kernel, x), jnp.ones(2))[0]


def orders(function):
    """Return the orders of axes of all convolutions."""
    program = jax.jit(function).lower(kernel, x).compile().as_text()
    return sorted({*re.findall(r"dim_labels=(\w+->\w+)", program)})


def seconds(function):
    """Return the processor time of the shortest of five calls."""
    compiled, times = jax.jit(function), []
    jax.block_until_ready(compiled(kernel, x))
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(compiled(kernel, x))
        times.append(time.process_time() - start)
    return min(times)


gradient = jax.grad(loss)
found = [orders(each) for each in (loss, twice(loss), gradient, twice(gradient))]
ratio = seconds(twice(gradient)) / (2 * seconds(gradient))
for name, each in zip(("convolution", "in a loop", "gradient", "in a loop"), found):
    print(f"{name}: {', '.join(each)}")
print(f"in a loop the gradient takes {ratio:.0f} times as long")
fast = "b01f_01io->b01f"
assert found == [[fast], [fast], [fast], [fast, "f01b_i01o->01bf"]] and ratio > 4
PYTHON
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/try.py"
