"""Command `python -m vrl_jax.data.prepare`, see `vrl_jax.data.tools.transcode`."""

from vrl_jax.data.tools.transcode import main

if __name__ == "__main__":
    main()
