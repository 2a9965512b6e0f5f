"""BOD-VCL on your own videos, on a laptop, with a tiny encoder.

python -m vrl_jax.main --config=configs/folders_bod.py --config.data.root=/path/to/videos

`root` contains `train/<class>/<video>` and `val/<class>/<video>`. On a GPU use `k400_bod.py`, which
reads the same folders, with a batch size that fits. If a horizontal flip changes what a video
shows, pass `--config.augment.flip=0`.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import ClassFolders


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.data = config.describe(ClassFolders())
    described.sampling.stride = 2
    # Decoding runs on the cores that train; its share of them grows with its threads.
    described.loader = config.describe(Loader(threads=4, buffer=4))
    described.resize = (36, 44)
    described.augment = config.describe(Augment(size=32, blur=0.0))
    return described
