"""v-SimCLR of the large-scale study (arXiv 2104.14558): SlowOnly-R50 8 x 8 on Kinetics-400.

python -m vrl_jax.main --config=configs/k400_simclr.py --config.data.root=/path/to/k400

200 epochs with 512 videos per step, two clips of 8 frames each, 224 pixels. The study's "8 x 8" is
every ninth frame of 30 a second; its cosine spans the whole run; heads start with Caffe2's
"Xavier", whose variance counts inputs alone. The study reports 60.5 (paper) and 61.5 (its
repository) on K400 with a linear probe. Not run to its end here. The study computes batch
statistics over 64 clips, this recipe over the global batch.
"""

from vrl_jax import config
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.experiment import Experiment
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.instance import Instance
from vrl_jax.probes.probe_suite import ProbeConfig
from vrl_jax.train.optim import LARS
from vrl_jax.train.train_loop import Train


def get_config(arg: str = ""):
    return config.describe(
        Experiment(
            data=ClassFolders(),
            sampling=Sampling(frames=8, stride=9, fps=30.0, clips=2),
            resize=(256, 340),
            augment=Augment(size=224),
            encoder=SlowOnly(dtype="bfloat16", two_pass=True),
            framework=SimCLR(hidden=2048, layers=3, norm=True, fan_in=True),
            method=Instance(dim=128, temperature=0.1),
            optim=LARS(
                learning_rate=4.8,
                reference_batch=512,
                start=0.008,  # 0.001 on each of 8 nodes
                warmup=35 / 200,
                whole_cosine=True,
                weight_decay=1e-6,
            ),
            train=Train(batch=512, epochs=200, log_every=50, probe_every=10_000, save_every=1000),
            evaluate=ProbeConfig(clips=10, batch=32),
            loader=Loader(workers=16, threads=1),
        )
    )
