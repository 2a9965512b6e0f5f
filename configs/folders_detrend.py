"""A fixed filter and a shared forecast on your own videos, on a laptop, with a tiny encoder.

python -m vrl_jax.main --config=configs/folders_detrend.py --config.data.root=/path/to/videos

`folders_bod.py` with the method of `synthetic_detrend.py`, which holds more motion where it was
measured: `docs/split.md`.
"""

from configs import folders_bod, synthetic_detrend


def get_config(arg: str = ""):
    described = folders_bod.get_config()
    described.method = synthetic_detrend.get_config().method
    return described
