"""Appearance and motion in every layer of an encoder, on rendered videos with known factors.

python -m vrl_jax.main --config=configs/eval_scan.py --config.init=runs/mine

`vrl scan runs/mine` makes a page and a card of it. Any labelled set works:
--data="UCF101 root=/data/ucf annotations=/data/lists". Takes minutes on two cores.
"""

from vrl_jax import config
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import RunInput
from vrl_jax.evaluation.protocols.factors import Factors
from vrl_jax.probes.attentive_probe import AttentiveProbe


def get_config(arg: str = ""):
    protocol = Factors(
        test=RunInput(clips=1),
        layers=True,
        conflict=True,
        intervals=True,
        attentive=AttentiveProbe(steps=200),
    )
    data = Synthetic(train_videos=512, test_videos=512)
    return config.describe(Evaluation(data=data, protocol=protocol, batch=32))
