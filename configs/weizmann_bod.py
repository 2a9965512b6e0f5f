"""BOD-VCL on real videos on a laptop: the Weizmann actions, evaluated on left-out persons.

python -m vrl_jax.main --config=configs/weizmann_bod.py --config.data.root=/path/to/weizmann
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import Weizmann
from vrl_jax.probes.probe_suite import ProbeConfig


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.data = config.describe(Weizmann(frames=16))
    described.resize = (36, 44)
    described.augment = config.describe(
        Augment(
            size=32,
            subtract_background=True,  # static camera: the background identifies the person
            area=(0.3, 1.0),
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            blur=0.0,
        )
    )
    described.method.forecast_weight = 0.0  # untested on these videos
    # Decoding runs on the cores that train; its share of them grows with its threads.
    described.loader = config.describe(Loader(threads=4, buffer=4))
    described.train.batch = 32
    described.train.steps = 500
    described.evaluate = config.describe(ProbeConfig(group="person"))
    return described
