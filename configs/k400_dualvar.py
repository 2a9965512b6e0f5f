"""DualVar on SimCLR (arXiv 2107.01194): the 10-layer R(2+1)D on Kinetics-400.

python -m vrl_jax.main --config=configs/k400_dualvar.py --config.data.root=/path/to/k400

200 epochs with 64 videos per step, clips of 16 frames at stride 4, 112 pixels. After fine-tuning,
the paper reports 82.0 on UCF101 and 51.2 on HMDB51, and 46.1 R@1 for retrieval on UCF101 (46.7 in
its table), from the checkpoint after 190 epochs. Not run to its end here. Frames are resized to 128
x 171 (height x width); the released code has a height of 171 and a width of 128.
"""

from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.experiment import Experiment
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.dualvar import DualVar
from vrl_jax.probes.probe_suite import ProbeConfig
from vrl_jax.train.optim import SGD
from vrl_jax.train.train_loop import Train

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def get_config(arg: str = ""):
    return config.describe(
        Experiment(
            data=ClassFolders(),
            sampling=Sampling(frames=16, stride=4, clips=2, layout="centred"),
            resize=(128, 171),
            augment=Augment(
                size=112,
                reverse=0.5,
                crop="plain",
                flip=0.0,
                jitter=0.64,
                brightness=0.8,
                contrast=0.8,
                saturation=0.8,
                hue=0.2,
                gray=0.0,
                **IMAGENET,
            ),
            encoder=R2plus1D(blocks=(1, 1, 1, 1), variant="vcop", dtype="bfloat16"),
            framework=SimCLR(hidden=512, layers=2, norm=False),
            method=DualVar(),
            optim=SGD(
                learning_rate=0.003,
                warmup=0.0,
                drops=(0.6, 0.8),  # epochs 120 and 160
                weight_decay=1e-4,
                decay_all=True,
                nesterov=False,
            ),
            train=Train(batch=64, epochs=200, log_every=50, probe_every=50_000, save_every=2000),
            evaluate=ProbeConfig(clips=10, batch=32, center="each"),
            loader=Loader(workers=16, threads=1),
        )
    )
