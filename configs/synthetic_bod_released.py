"""BOD-VCL with the options of the released code and of ablations, otherwise `synthetic_bod.py`.

python -m vrl_jax.main --config=configs/synthetic_bod_released.py \
    --config.method.static_weight=0 --config.method.dynamic_weight=0 --config.method.joint_weight=1
"""

from dataclasses import asdict

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.methods.bod_released import ReleasedBOD


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.method = config.describe(ReleasedBOD(**asdict(config.build(described.method))))
    return described
