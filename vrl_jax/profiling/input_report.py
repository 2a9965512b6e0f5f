"""Diagnosis of the input pipeline's bottleneck from measured rates."""

import json
import math
import shlex
from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.datasets.indexed import Indexed
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Listing, Splits

TRANSCODE = "transcode the videos once and train on the copies:"
MIN_UTILIZATION = 0.95  # above it the input pipeline is fast enough


@dataclass(frozen=True)
class Rates:
    """Videos per second of each stage in isolation.

    Attributes:
      read: one process that only reads files; infinite where videos are not in files.
      decode: one process that only decodes, from files in memory.
      loader: the loader with its configured processes, including decoding.
      transfer: batches from host memory to the devices.
      step: the compiled training step on a batch in device memory.
    """

    read: float
    decode: float
    loader: float
    transfer: float
    step: float

    def __post_init__(self) -> None:
        check.positive(**vars(self))


@dataclass(frozen=True)
class Setup:
    """Settings that affect the input pipeline.

    Attributes:
      loader: number of decoding processes and threads.
      cores: CPU cores of the machine.
      resize: height and width of decoded frames.
      crop: side of the network's input.
      prepare: commands that transcode the videos for fast reading; "" where not applicable.
    """

    loader: Loader
    cores: int
    resize: tuple[int, int]
    crop: int
    prepare: str


def diagnose_input(rates: Rates, setup: Setup) -> str:
    """Return a text that names the bottleneck, its cost and a remedy."""
    utilization = min(rates.loader, rates.transfer) / rates.step
    if utilization >= MIN_UTILIZATION:
        return "Bottleneck: the training step. The input pipeline keeps up; nothing to change."
    idle = f"The accelerator would idle {1 - utilization:.0%} of the time"
    if rates.transfer < rates.loader:
        remedy = _smaller_frames(setup) or "a faster link to the accelerator is needed"
        return f"Bottleneck: the transfer to the device. {idle}.\nRemedy: {remedy}"
    if rates.read < rates.decode:
        transcode = f", or {TRANSCODE}\n{setup.prepare}" if setup.prepare else ""
        return f"Bottleneck: reading from disk. {idle}.\nRemedy: a faster disk{transcode}"
    return f"Bottleneck: the loader. {idle}.\nRemedy: {_faster_loading(rates, setup)}"


def _faster_loading(rates: Rates, setup: Setup) -> str:
    """Return how to load faster: more processes while there are idle cores, else less work."""
    workers, cores = setup.loader.workers, setup.cores
    per_worker = rates.loader / min(workers, cores) if workers else rates.decode
    required = math.ceil(rates.step / per_worker)
    if workers < required <= cores:
        return f"--config.loader.workers={required}"
    if setup.prepare:
        cheaper = f"{TRANSCODE}\n{setup.prepare}"
    else:
        cheaper = _smaller_frames(setup) or "more cores are needed"
    share = (
        f"all {cores} cores load {per_worker * cores / rates.step:.0%} of what the step consumes"
    )
    more = f"--config.loader.workers={cores}; " if workers < cores else ""
    return f"{more}since {share}, {cheaper}"


def _smaller_frames(setup: Setup) -> str:
    """Return the flag for the smallest frames that contain a crop; "" where they are minimal."""
    scale = setup.crop / min(setup.resize)
    height, width = (max(setup.crop, round(side * scale)) for side in setup.resize)
    return f'--config.resize="({height},{width})" (clips lose detail)' if scale < 1 else ""


def prepare_commands(data: Splits, short_side: int) -> str:
    """Return commands that transcode a dataset of video files; "" for other datasets."""
    if not isinstance(data, Listing) or not isinstance(data.pretrain()[0].media, VideoFile):
        return ""
    manifest, commands = "INDEX", []
    if isinstance(data, Indexed):
        manifest = shlex.quote(data.manifest)
    else:
        description = dataset_lookup.describe_dataset(data)
        fields = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in description["fields"].items()
            if value != ""
        ]
        words = shlex.join([description["source"], *fields])
        commands.append(f"python -m vrl_jax.data.index {words} --out={manifest}")
    commands += [
        f"python -m vrl_jax.data.prepare {manifest} --out=SHARDS --short-side={short_side}",
        "--data='Prepared root=SHARDS'",
    ]
    return "\n".join(f"  {command}" for command in commands)
