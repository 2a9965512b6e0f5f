#!/usr/bin/env bash
# JAX 0.10.2 with jax-cuda12-plugin 0.10.2, Python 3.11, Linux on x86-64
#
# On GPU, XLA chooses the memory layout of a convolution by its number of axes. In bfloat16, one over
# (time, height, width) becomes channels-first and one over (height, width) channels-last, which is
# what tensor cores need. Even a 1 x 3 x 3 kernel is channels-first, unless frames are folded into the
# batch. In float32, 2-D convolutions are channels-last from Hopper on, and channels-first before. The
# flag --xla_gpu_force_conv_nhwc makes all of them channels-last.
#
# The plugin compiles for a described GPU, so no GPU is needed.
#
# Output:
#   3-D bfloat16: bf012_oi012->bf012
#   2-D bfloat16: b01f_o01i->b01f
#   2-D float32, before Hopper: bf01_oi01->bf01
#   3-D bfloat16, forced: b012f_o012i->b012f
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax[cuda12-local]==0.10.2" nvidia-cuda-nvcc-cu12

cat > "$folder/try.py" <<'PYTHON'
import re
import sys

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

TARGET = """
platform_name: "CUDA" device_description_str: "GPU" dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 8 }
gpu_device_info { cuda_compute_capability { major: MAJOR } core_count: 108 fpus_per_core: 64
  clock_rate_ghz: 1.4 l2_cache_size: 41943040 device_memory_size: 42000000000
  memory_bandwidth: 1555000000000 threads_per_warp: 32 threads_per_block_limit: 1024
  threads_per_core_limit: 2048 registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 166912
  shared_memory_per_core: 167936 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 }
"""


def layout(axes, dtype, major=9):
    """Return how the compiler lays out a convolution over two or three axes."""
    config = TARGET.replace("MAJOR", str(major))
    described = topologies.get_topology_desc("gpu", "cuda", target_config=config, topology="1x1x1")
    place = SingleDeviceSharding(described.devices[0])
    x, kernel = (8, *(16,) * axes, 64), (*(3,) * axes, 64, 64)
    specs = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape in (x, kernel)]
    names = ("NHWC", "HWIO", "NHWC") if axes == 2 else ("NDHWC", "DHWIO", "NDHWC")

    def convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1,) * axes, "SAME", dimension_numbers=names)

    return re.search(r"dim_labels=(\S+?),", jax.jit(convolve).lower(*specs).compile().as_text())[1]


jax.config.update("jax_platforms", "cpu")
if "forced" in sys.argv:
    print("3-D bfloat16, forced:", layout(3, jnp.bfloat16))
else:
    print("3-D bfloat16:", layout(3, jnp.bfloat16))
    print("2-D bfloat16:", layout(2, jnp.bfloat16))
    print("2-D float32, before Hopper:", layout(2, jnp.float32, major=8))
PYTHON

run() { "$folder/venv/bin/python" "$folder/try.py" "$@" 2> "$folder/log" || { tail "$folder/log"; exit 1; }; }
{ run; XLA_FLAGS=--xla_gpu_force_conv_nhwc=true run forced; } | tee "$folder/out"
diff "$folder/out" - <<'EXPECTED'
3-D bfloat16: bf012_oi012->bf012
2-D bfloat16: b01f_o01i->b01f
2-D float32, before Hopper: bf01_oi01->bf01
3-D bfloat16, forced: b012f_o012i->b012f
EXPECTED
