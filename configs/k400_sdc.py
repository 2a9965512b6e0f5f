"""SDC (arXiv 2207.12795): R(2+1)D with one block per stage on Kinetics-400, at 128 pixels.

python -m vrl_jax.main --config=configs/k400_sdc.py --config.data.root=/path/to/k400

100 epochs, two adjacent clips of 16 frames at a random rate of 1 to 3. The paper's accuracies could
not be recovered. Not run to its end here. The global batch of 256 is our choice.
"""

from configs import k400_dualvar
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.experiment import Experiment
from vrl_jax.methods.sdc import SDC
from vrl_jax.probes.probe_suite import ProbeConfig
from vrl_jax.train.optim import Adam
from vrl_jax.train.train_loop import Train


def get_config(arg: str = ""):
    return config.describe(
        Experiment(
            data=ClassFolders(),
            sampling=Sampling(frames=16, stride=1, clips=2, layout="adjacent", max_stride=3.0),
            resize=(160, 214),
            augment=Augment(
                size=128,
                area=(0.5, 1.0),
                jitter=1.0,
                brightness=0.5,
                contrast=0.5,
                saturation=0.5,
                hue=0.25,
                gray=0.5,
                gray_kind="channel",
                gray_first=True,
                blur=0.0,
                **k400_dualvar.IMAGENET,
            ),
            encoder=R2plus1D(blocks=(1, 1, 1, 1), dtype="bfloat16"),
            method=SDC(concepts=100),
            optim=Adam(
                learning_rate=1e-3, warmup=0.0, drops=(0.7,), weight_decay=1e-5, decay_all=True
            ),
            train=Train(batch=256, epochs=100, log_every=50, probe_every=10_000, save_every=1000),
            evaluate=ProbeConfig(clips=10, batch=32),
            loader=Loader(workers=16, threads=1),
        )
    )
