"""HDC on the Weizmann actions; otherwise as `weizmann_bod.py`.

python -m vrl_jax.main --config=configs/weizmann_hdc.py --config.data.root=/path/to/weizmann
"""

from configs import synthetic_hdc, weizmann_bod


def get_config(arg: str = ""):
    described = weizmann_bod.get_config()
    described.method = synthetic_hdc.get_config().method
    described.framework = None
    return described
