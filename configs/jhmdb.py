"""All methods, and the arms of the experiment on the split, on JHMDB split 1 on a laptop.

python -m vrl_jax.main --config=configs/jhmdb.py:bod --config.data.root=/path/to/jhmdb \
    --config.data.annotations=/path/to/splits

`--config=configs/jhmdb.py:NAME` takes simclr, bod, dualvar, hdc or sdc, or an arm of
`synthetic_split.py`. Pretrained on the training clips of the split, probed on its test clips. The
probe's settings are chosen on held-out source videos. With `--config.data.masks=/path/to/masks` the
report on factors replaces backgrounds. Takes minutes on two cores.
"""

from configs import (
    synthetic_bod,
    synthetic_dualvar,
    synthetic_hdc,
    synthetic_sdc,
    synthetic_split,
)
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.factor_benchmarks import JHMDB
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.probes.probe_suite import ProbeConfig

METHODS = {
    "bod": synthetic_bod,
    "dualvar": synthetic_dualvar,
    "hdc": synthetic_hdc,
    "sdc": synthetic_sdc,
}


def small_run(name: str, sampling: Sampling):
    """Return the config of a method or an arm at 32 pixels, in clips of a sampling."""
    listed = name in METHODS
    described = METHODS[name].get_config() if listed else synthetic_split.get_config(name)
    layout = "adjacent" if name == "sdc" and sampling.layout == "independent" else sampling.layout
    described.sampling = config.describe(sampling)
    described.sampling.layout = layout
    described.augment = config.describe(
        Augment(
            size=32,
            area=(0.3, 1.0),
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            blur=0.0,
        )
    )
    described.loader = config.describe(Loader(threads=4, buffer=4))
    described.train.batch = 32
    described.train.steps = 500
    described.train.probe_every = 0
    return described


def get_config(arg: str = ""):
    described = small_run(arg or "bod", Sampling(frames=16, stride=2, clips=2))
    described.data = config.describe(JHMDB())
    described.resize = (36, 48)
    described.evaluate = config.describe(ProbeConfig(cluster="source", parts=True, segments=4))
    return described
