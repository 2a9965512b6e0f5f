"""Whether a training step fits its chips, and what it costs there, before any chip is rented.

`python -m vrl_jax.preflight --config=configs/k400_bod.py --topology=v5e:4x4` takes the flags of
`vrl_jax.main`. It compiles the step that `vrl_jax.main` would run for a slice of TPU chips without
one (`pip install 'vrl-jax[tpu]'`), for `--devices=8` simulated CPU devices, or for the devices that
are there; prints memory, operations and exchanges of each chip; says whether it fits, and what to
change. The data set need not be there.
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
from vrl_jax.data.dataset import VideoError
from vrl_jax.encoders.layers import formulation_on
from vrl_jax.evaluation.config import Evaluation
from vrl_jax.experiment import Experiment
from vrl_jax.flags import config_from_flags, launch
from vrl_jax.pretraining.program import make_program
from vrl_jax.profiling import devices
from vrl_jax.profiling.devices import Chip
from vrl_jax.profiling.step_report import StepReport, analyze_step, format_report, format_verdict
from vrl_jax.report.storage import is_remote
from vrl_jax.train import sharding

_TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slice to compile for, as v5e:4x4.")
_DEVICES = flags.DEFINE_integer("devices", None, "Simulated CPU devices to compile for.")
_BATCH = flags.DEFINE_integer("per_chip_batch", None, "Videos a chip, for train.batch over all.")
_VIDEOS = flags.DEFINE_integer("videos", None, "Size of the pretraining set, not looked for then.")
_JSON = flags.DEFINE_string("json", "", "File for all figures.")


def compile_step(experiment: Experiment, place: Mesh, videos: int, chip: Chip | None) -> StepReport:
    """Compile the step of an experiment for the devices of a mesh and read what it needs.

    Args:
      experiment: what to train.
      place: the devices, which may be described ones.
      videos: in the pretraining set.
      chip: their figures, where they are known.

    Raises:
      ValueError: what training refuses too.
    """
    sharding.check_batch(place, "evaluate.batch", experiment.evaluate.batch)
    experiment = for_platform(experiment, place.devices.flat[0].platform)
    return analyze_step(make_program(experiment, videos, place), experiment, place, chip)


def for_platform(experiment: Experiment, platform: str) -> Experiment:
    """Return the experiment with the convolutions that a platform gets, which need not be here.

    "auto" convolutions choose while they are traced, by the backend of this process; the platform
    of the devices that a program is for is known only when it is lowered.
    """
    encoder = experiment.encoder
    if getattr(encoder, "conv", "") != "auto":
        return experiment
    return replace(experiment, encoder=replace(encoder, conv=formulation_on(platform)))


def count_videos(experiment: Experiment) -> int:
    """Return the size of the pretraining set, or of one batch where the set is not there.

    Only the lengths of schedules, constants in the program, depend on it: no figure does.
    """
    if _VIDEOS.value is not None:
        check.at_least(1, videos=_VIDEOS.value)
        return _VIDEOS.value
    try:
        return len(experiment.data.pretrain())
    except (ValueError, VideoError) as error:
        print(f"The data set is not here ({error}): schedules are those of a set of one batch.")
        return experiment.train.batch


def devices_from_flags() -> list[jax.Device]:
    """Return the devices that the command line asks for.

    Raises:
      ValueError: it asks for two kinds, or for what there is not.
    """
    if _TOPOLOGY.value and _DEVICES.value is not None:
        raise ValueError("topology and devices are two targets: pass one of them")
    if _TOPOLOGY.value:
        return devices.tpu_slice(_TOPOLOGY.value)
    return jax.devices() if _DEVICES.value is None else devices.simulated_devices(_DEVICES.value)


def target_from_flags(experiment: Experiment | Evaluation) -> tuple[Experiment, Mesh]:
    """Return what the command line asks for: the experiment, its batch changed, and the devices.

    Raises:
      ValueError: it asks for what there is not.
    """
    if not isinstance(experiment, Experiment):
        raise ValueError("the config is of an evaluation: it has no training step")
    if is_remote(_JSON.value):
        raise ValueError(f"json must be a file on this machine, got {_JSON.value}")
    place = sharding.make_mesh(devices_from_flags())
    if _BATCH.value is not None:
        check.at_least(1, per_chip_batch=_BATCH.value)
        train = replace(experiment.train, batch=_BATCH.value * place.size)
        experiment = replace(experiment, train=train)
    return experiment, place


def write_figures(path: pathlib.Path, finding: StepReport, experiment: Experiment) -> None:
    """Write all figures, with the settings and the versions that they are of."""
    versions = {}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    figures = dataclasses.asdict(finding) | {
        "fits": finding.fits,
        "verdict": format_verdict(finding),
    }
    described = json.loads(configs.describe(experiment).to_json())
    tree = {"target": _TOPOLOGY.value, **figures, "versions": versions, "config": described}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2))


def main() -> None:
    """Compile and print."""
    jax.config.update("jax_enable_compilation_cache", False)  # the time is that of compiling
    try:
        experiment, place = target_from_flags(config_from_flags())
        chip = devices.find_chip(place.devices.flat[0].device_kind)
        finding = compile_step(experiment, place, count_videos(experiment), chip)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(format_report(finding))
    if _JSON.value:
        write_figures(pathlib.Path(_JSON.value), finding, experiment)
    sys.exit(0 if finding.fits is not False else 1)


if __name__ == "__main__":
    launch(main)
