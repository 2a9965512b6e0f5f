#!/usr/bin/env bash
# JAX 0.10.2, Python 3.11, Linux on x86-64 (the same with JAX 0.12.0.1 on Python 3.13)
#
# An array with one row on each device, whose rows are repeated along a new axis and then reversed
# within groups, comes back in its old order: the reversal across devices is left out, without an
# error. With two rows a device, without the repetition, or without `jit` over several devices the
# result is right. Labels of mixed videos (mixup takes the batch in reverse order) are such arrays.
#
# Output:
#   one row a device: [0, 0, 1, 1] for [1, 1, 0, 0]
#   two rows a device: [3, 3, 2, 2, 1, 1, 0, 0] for [3, 3, 2, 2, 1, 1, 0, 0]
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2"

cat > "$folder/try.py" <<'PYTHON'
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

rows = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))


def reverse_repeated(x):
    """Repeat every row twice, and reverse the rows."""
    return jnp.repeat(x, 2).reshape(1, len(x), 2)[:, ::-1].reshape(-1)


def compare(count):
    """Return the result on the devices, and the right one, as lists."""
    x = jnp.arange(count)
    on_devices = jax.jit(reverse_repeated, in_shardings=rows)(jax.device_put(x, rows))
    return on_devices.tolist(), reverse_repeated(x).tolist()


assert len(jax.devices()) == 2
for count, name in ((2, "one row"), (4, "two rows")):
    result, right = compare(count)
    print(f"{name} a device: {result} for {right}")
    assert (result == right) == (count == 4)
PYTHON

JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2 \
  "$folder/venv/bin/python" "$folder/try.py"
