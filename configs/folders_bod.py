"""BOD-VCL on your own videos, on a laptop: a first look with a tiny network.

python -m vrl_jax.main --config=configs/folders_bod.py --config.data.root=/path/to/videos

`root` holds `train/<class>/<video>` and `val/<class>/<video>`. On a GPU take `k400_bod.py`, which
reads the same folders, with a batch that fits. Where mirroring changes what a video means, pass
`--config.augment.flip=0`.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.augment.views import Augment
from vrl_jax.data.datasets.folders import ClassFolders
from vrl_jax.data.loader import Loader


def get_config(arg: str = ""):
    described = synthetic_bod.get_config()
    described.data = config.describe(ClassFolders())
    described.sampling.stride = 2
    # Decoding takes the cores that train: its share of them grows with its threads.
    described.loader = config.describe(Loader(threads=4, buffer=4))
    described.resize = (36, 44)
    described.augment = config.describe(Augment(size=32, blur=0.0))
    return described
