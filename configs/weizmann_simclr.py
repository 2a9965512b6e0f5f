"""SimCLR on the Weizmann actions: the baseline; otherwise as `weizmann_bod.py`.

python -m vrl_jax.main --config=configs/weizmann_simclr.py --config.data.root=/path/to/weizmann
"""

from configs import synthetic_simclr, weizmann_bod


def get_config(arg: str = ""):
    described = weizmann_bod.get_config()
    described.method = synthetic_simclr.get_config().method
    return described
