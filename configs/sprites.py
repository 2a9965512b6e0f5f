"""All methods, and the arms of the experiment on the split, on Sprites on a laptop.

python -m vrl_jax.main --config=configs/sprites.py:bod --config.data.root=/path/to/layers

`--config=configs/sprites.py:NAME` takes the names of `jhmdb.py`. One frame tells the motion of a
sprite, so the table of parts shows where the factors sit, not whether motion is seen. Takes minutes
on two cores.
"""

from configs import jhmdb
from vrl_jax import config
from vrl_jax.data.datasets.factor_benchmarks import Sprites
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.probes.probe_suite import ProbeConfig


def get_config(arg: str = ""):
    described = jhmdb.small_run(arg or "bod", Sampling(frames=8, stride=1, clips=2))
    described.data = config.describe(Sprites(train_characters=200, test_characters=100))
    described.resize = (32, 32)
    described.augment.flip = 0.0
    described.augment.hue = 0.0  # the colour of hair and clothes is their label
    described.train.batch = 64
    described.train.steps = 300
    described.evaluate = config.describe(ProbeConfig(parts=True))
    return described
