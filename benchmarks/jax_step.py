"""The JAX side of `benchmarks/step.py`: times the step of `vrl_jax.main`.

Its argument is the settings as JSON; its last line of output is the result as JSON.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")

import jax  # noqa: E402  (reads the variable above)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.step import WARM, Settings  # noqa: E402
from tests.encoders.reference import count, multiply_adds  # noqa: E402
from vrl_jax.augment.clip_views import Augment  # noqa: E402
from vrl_jax.data.datasets.synthetic import Synthetic  # noqa: E402
from vrl_jax.data.frame_sampling import Sampling  # noqa: E402
from vrl_jax.encoders.r2plus1d import R2plus1D  # noqa: E402
from vrl_jax.encoders.r3d import R3D  # noqa: E402
from vrl_jax.encoders.slowonly import SlowOnly  # noqa: E402
from vrl_jax.encoders.tiny import Tiny  # noqa: E402
from vrl_jax.experiment import Experiment  # noqa: E402
from vrl_jax.frameworks.moco import MoCo  # noqa: E402
from vrl_jax.frameworks.simclr import SimCLR  # noqa: E402
from vrl_jax.methods.base import MethodConfig  # noqa: E402
from vrl_jax.methods.instance import Instance  # noqa: E402
from vrl_jax.pretraining.train_program import Program, make_program  # noqa: E402
from vrl_jax.train import provenance  # noqa: E402
from vrl_jax.train.optim import SGD, AdamW  # noqa: E402
from vrl_jax.train.sharding import make_mesh, shard_rows  # noqa: E402
from vrl_jax.train.train_loop import Train  # noqa: E402

ENCODERS = {"r2plus1d-18": R2plus1D, "r3d-18": R3D, "slowonly-50": SlowOnly, "tiny": Tiny}
FRAMEWORKS = {"simclr": SimCLR, "moco": MoCo}
OPTIMS = {"sgd": SGD, "adamw": AdamW}
VIDEOS = 4096


def make_experiment(
    settings: Settings, method: MethodConfig | None = None, **encoder: Any
) -> Experiment:
    """Return the experiment whose step is timed, by default instance discrimination."""
    return Experiment(
        data=Synthetic(),
        sampling=Sampling(frames=settings.frames, clips=2),
        resize=settings.resize,
        augment=Augment(size=settings.size),
        encoder=ENCODERS[settings.encoder](
            **{"dtype": settings.dtype, "conv": settings.conv} | encoder
        ),
        framework=FRAMEWORKS[settings.framework](),
        method=method or Instance(),
        optim=OPTIMS[settings.optim](),
        train=Train(batch=settings.batch, steps=1000),
    )


def make_device_program(experiment: Experiment) -> Program:
    """Return the program of an experiment on the first device."""
    return make_program(experiment, VIDEOS, make_mesh(jax.devices()[:1]))


def compile_runner(program: Program) -> Callable[[int], None]:
    """Return a function that runs a number of steps on random clips and waits for the last."""
    step, state = program.step.lower().compile(), program.init()
    rows = np.random.default_rng(0).integers(256, size=program.clips.shape, dtype=np.uint8)
    clips = shard_rows(program.clips.sharding.mesh, rows)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, clips)
        jax.block_until_ready((state, metrics))

    return run


def count_flop_per_clip(settings: Settings) -> int:
    """Return the model FLOP for a view, including that of a teacher."""
    network = ENCODERS[settings.encoder](conv="native").module()
    shape = (1, settings.frames, settings.size, settings.size, 3)
    return 2 * multiply_adds(network, shape) * (4 if settings.framework == "moco" else 3)


def measure_matmul_flops(side: int = 8192, times: int = 20) -> float:
    """Return the FLOP per second of products of square bfloat16 matrices."""
    x = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    began = time.perf_counter()
    products = [product(x, x) for _ in range(times)]
    jax.block_until_ready(products)
    return 2 * side**3 * times / (time.perf_counter() - began)


def measure(settings: Settings) -> dict[str, Any]:
    """Return the seconds per step, and properties that both sides must share."""
    experiment = make_experiment(settings)
    program = make_device_program(experiment)
    run = compile_runner(program)
    run(WARM)
    began = time.perf_counter()
    run(settings.steps)
    seconds = (time.perf_counter() - began) / settings.steps
    gpu = jax.default_backend() == "gpu"
    return {
        "seconds": seconds,
        "device": jax.devices()[0].device_kind,
        "augmentation": dataclasses.asdict(experiment.augment),
        "parameters": count(program.state.params),
        "flop_per_clip": count_flop_per_clip(settings),
        "matmul_flops": measure_matmul_flops() if gpu else None,
        "environment": provenance.describe_environment(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Settings(**json.loads(sys.argv[1])))))
