"""Command `python -m vrl_jax.data.index`, see `vrl_jax.data.tools.video_index`."""

from vrl_jax.data.tools.video_index import main

if __name__ == "__main__":
    main()
