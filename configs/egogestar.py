"""All methods, and the arms of the experiment on the split, on EgoGestAR on a laptop.

python -m vrl_jax.main --config=configs/egogestar.py:bod --config.data.root=/path/to/egogestar \
    --config.data.scenes=/path/to/scenes.tsv

`--config=configs/egogestar.py:NAME` takes the names of `jhmdb.py`. Pretrained and probed on the
scenes of one fold, tested on those of the other (`--config.data.split=2` exchanges them). Gestures
are told by the order of positions, so clips span the whole video, and the probe reads six segments
in order as well. Nothing is flipped or reversed. Takes minutes on two cores.
"""

from configs import jhmdb
from vrl_jax import config
from vrl_jax.data.datasets.factor_benchmarks import EgoGestAR
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.probes.probe_suite import ProbeConfig


def get_config(arg: str = ""):
    described = jhmdb.small_run(arg or "bod", Sampling(frames=16, clips=2, layout="segments"))
    described.data = config.describe(EgoGestAR())
    described.resize = (36, 48)
    described.augment.flip = 0.0
    described.train.steps = 300
    described.evaluate = config.describe(
        ProbeConfig(ks=(1, 5, 10, 20), cluster="scene", parts=True, segments=6)
    )
    return described
