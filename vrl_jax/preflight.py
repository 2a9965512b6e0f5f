"""Memory and cost of a training step on TPUs or GPUs that are not attached.

`python -m vrl_jax.preflight --config=configs/k400_bod.py --topology=v5e:4x4` takes the flags of
`vrl_jax.main`. It compiles the same training step for a TPU slice without one (`pip install
'vrl-jax[tpu]'`), for GPUs without one (`--topology=h100:8`, `pip install 'vrl-jax[preflight]'`),
for `--devices=8` simulated CPU devices, or for the attached devices. It prints memory, operations
and communication per chip, whether the step fits, and what to change. The dataset need not be
present.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys
from dataclasses import replace

import jax
from absl import flags
from jax.sharding import Mesh

from vrl_jax import check
from vrl_jax import config as configs
from vrl_jax.data import remote_paths
from vrl_jax.data.video_dataset import VideoError
from vrl_jax.encoders.layers import default_formulation
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.experiment import Experiment
from vrl_jax.flags import config_from_flags, launch
from vrl_jax.pretraining.initial_encoder import load_init
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.profiling.compile_targets import compile_devices, simulated_devices
from vrl_jax.profiling.device_specs import Chip, find_chip
from vrl_jax.profiling.step_report import StepReport, analyze_step, format_report, format_verdict
from vrl_jax.report.remote_runs import is_remote
from vrl_jax.train import sharding

_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "TPU slice or GPUs to compile for: v5e:4x4, h100:8."
)
_DEVICES = flags.DEFINE_integer("devices", None, "Simulated CPU devices to compile for.")
_BATCH = flags.DEFINE_integer("per_chip_batch", None, "Videos per chip; sets train.batch.")
_VIDEOS = flags.DEFINE_integer("videos", None, "Size of the pretraining set; it is not read then.")
_JSON = flags.DEFINE_string("json", "", "File for all figures.")


def compile_step(experiment: Experiment, mesh: Mesh, videos: int, chip: Chip | None) -> StepReport:
    """Compile the training step for the devices of a mesh and return its memory and costs.

    Args:
      experiment: the configuration.
      mesh: the devices, which need not be attached.
      videos: size of the pretraining set.
      chip: specification of the devices, where known.

    Raises:
      ValueError: training would refuse the configuration as well.
    """
    sharding.check_batch(mesh, "evaluate.batch", experiment.evaluate.batch)
    experiment = load_init(experiment)[0]
    experiment = resolve_convolutions(experiment, mesh.devices.flat[0].platform)
    return analyze_step(make_program(experiment, videos, mesh), experiment, mesh, chip)


def resolve_convolutions(experiment: Experiment, platform: str) -> Experiment:
    """Return the experiment with "auto" convolutions resolved for a platform.

    Otherwise they would be resolved during tracing for the backend of this process, which may
    differ from the platform that the step is lowered for.
    """
    encoder = experiment.encoder
    if getattr(encoder, "conv", "") != "auto":
        return experiment
    conv = default_formulation(platform, encoder.dtype)
    return replace(experiment, encoder=replace(encoder, conv=conv))


def count_videos(experiment: Experiment) -> int:
    """Return the size of the pretraining set, or of one batch where the set is absent.

    It affects only the lengths of schedules, which are constants in the program, and no figure.
    """
    if _VIDEOS.value is not None:
        check.at_least(1, videos=_VIDEOS.value)
        return _VIDEOS.value
    try:
        return len(experiment.data.pretrain())
    except (ValueError, VideoError) as error:
        print(f"The dataset is absent ({error}); schedules assume a dataset of one batch.")
        return experiment.train.batch


def devices_from_flags() -> list[jax.Device]:
    """Return the devices that the command line selects.

    Raises:
      ValueError: it selects two kinds, or unavailable devices.
    """
    if _TOPOLOGY.value and _DEVICES.value is not None:
        raise ValueError("topology and devices are mutually exclusive: pass one of them")
    if _TOPOLOGY.value:
        return compile_devices(_TOPOLOGY.value)
    return jax.devices() if _DEVICES.value is None else simulated_devices(_DEVICES.value)


def target_from_flags(experiment: Experiment | Evaluation) -> tuple[Experiment, Mesh]:
    """Return the experiment, with the batch size of the command line, and the mesh.

    Raises:
      ValueError: the config has no training step, or the devices are unavailable.
    """
    if not isinstance(experiment, Experiment):
        raise ValueError(
            "config must describe a pretraining run: an evaluation has no pretraining step"
        )
    if is_remote(_JSON.value):
        raise ValueError(f"json must be a local file, got {_JSON.value}")
    mesh = sharding.make_mesh(devices_from_flags())
    if _BATCH.value is not None:
        check.at_least(1, per_chip_batch=_BATCH.value)
        train = replace(experiment.train, batch=_BATCH.value * mesh.size)
        experiment = replace(experiment, train=train)
    return experiment, mesh


def write_figures(path: pathlib.Path, report: StepReport, experiment: Experiment) -> None:
    """Write all figures as JSON, with the config and the versions of JAX and its compilers."""
    versions = {}
    for name in ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    figures = dataclasses.asdict(report) | {
        "fits": report.fits,
        "verdict": format_verdict(report),
    }
    described = json.loads(configs.describe(experiment).to_json())
    tree = {"target": _TOPOLOGY.value, **figures, "versions": versions, "config": described}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2))


def main() -> None:
    """Compile the step and print the report; exit with 1 if the step does not fit."""
    jax.config.update("jax_enable_compilation_cache", False)  # to measure the compile time
    try:
        experiment, mesh = target_from_flags(config_from_flags())
        chip = find_chip(mesh.devices.flat[0].device_kind)
        report = compile_step(experiment, mesh, count_videos(experiment), chip)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        sys.exit(f"error: the compiler failed: {str(error).splitlines()[0]}")
    print(format_report(report))
    if _JSON.value:
        write_figures(remote_paths.to_path(_JSON.value), report, experiment)
    sys.exit(0 if report.fits is not False else 1)


if __name__ == "__main__":
    launch(main)
