"""Command `python -m vrl_jax.data.doctor`, an alias of `python -m vrl_jax.doctor`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("vrl_jax.doctor", run_name="__main__", alter_sys=True)
