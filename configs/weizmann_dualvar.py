"""DualVar on the Weizmann actions; otherwise as `weizmann_bod.py`.

python -m vrl_jax.main --config=configs/weizmann_dualvar.py --config.data.root=/path/to/weizmann
"""

from configs import synthetic_dualvar, weizmann_bod


def get_config(arg: str = ""):
    described = weizmann_bod.get_config()
    described.method = synthetic_dualvar.get_config().method
    return described
