"""Command `python -m vrl_jax.data.prepare`, see `vrl_jax.data.tools.video_transcoder`."""

from vrl_jax.data.tools.video_transcoder import main

if __name__ == "__main__":
    main()
