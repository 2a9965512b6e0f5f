"""Which stage of feeding the accelerator limits, and what to change: words from measured rates."""

import json
import math
import shlex
from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.data.dataset import Listing, Splits
from vrl_jax.data.datasets import lookup
from vrl_jax.data.datasets.indexed import Indexed
from vrl_jax.data.loader import Loader
from vrl_jax.data.video.decode import VideoFile

TRANSCODE = "transcode the videos once and train on those:"
ENOUGH = 0.95  # a step that waits less than the rest of its time is fed


@dataclass(frozen=True)
class Rates:
    """How many videos a second each stage does alone.

    Attributes:
      read: one process that only reads files; infinite where videos are in no files.
      decode: one process that only decodes, its files in memory.
      loader: the loader as the config sets it, decoding included.
      transfer: batches from the host's memory to the devices.
      step: the compiled training step on a batch that is there.
    """

    read: float
    decode: float
    loader: float
    transfer: float
    step: float

    def __post_init__(self) -> None:
        """Refuse rates of nothing."""
        check.positive(**vars(self))


@dataclass(frozen=True)
class Setup:
    """What could be changed.

    Attributes:
      loader: processes and threads that decode.
      cores: processor cores of the machine.
      resize: height and width that frames are decoded to.
      crop: side of the view that the network sees.
      prepare: commands that make the videos quick to read; "" where none do.
    """

    loader: Loader
    cores: int
    resize: tuple[int, int]
    crop: int
    prepare: str


def diagnose_input(rates: Rates, setup: Setup) -> str:
    """Return in plain words which stage limits, what that costs and what to change."""
    fed = min(rates.loader, rates.transfer) / rates.step
    if fed >= ENOUGH:
        return "The training step limits: the accelerator is fed. Nothing to change."
    idle = f"the accelerator would idle {1 - fed:.0%} of the time"
    if rates.transfer < rates.loader:
        advice = _smaller(setup) or "a faster link to the accelerator is needed"
        return f"The transfer to the device limits: {idle}.\nChange: {advice}"
    if rates.read < rates.decode:
        transcode = f", or {TRANSCODE}\n{setup.prepare}" if setup.prepare else ""
        return f"Reading from disk limits: {idle}.\nChange: a faster disk{transcode}"
    return f"The loader limits: {idle}.\nChange: {_more(rates, setup)}"


def _more(rates: Rates, setup: Setup) -> str:
    """Return how to load faster: by more processes while there are cores, else by less work."""
    workers, cores = setup.loader.workers, setup.cores
    each = rates.loader / min(workers, cores) if workers else rates.decode
    wanted = math.ceil(rates.step / each)
    if workers < wanted <= cores:
        return f"--config.loader.workers={wanted}"
    if setup.prepare:
        less = f"{TRANSCODE}\n{setup.prepare}"
    else:
        less = _smaller(setup) or "more cores are needed"
    share = f"all {cores} cores load {each * cores / rates.step:.0%} of what the step takes"
    more = f"--config.loader.workers={cores}, and " if workers < cores else ""
    return f"{more}as {share}, {less}"


def _smaller(setup: Setup) -> str:
    """Return the flag for the smallest frames that a crop fits in; nothing where they are so."""
    scale = setup.crop / min(setup.resize)
    height, width = (max(setup.crop, round(side * scale)) for side in setup.resize)
    return f'--config.resize="({height},{width})" (clips lose detail)' if scale < 1 else ""


def prepare_commands(data: Splits, short_side: int) -> str:
    """Return how to transcode a data set of video files and train on that; "" for any other."""
    if not isinstance(data, Listing) or not isinstance(data.pretrain()[0].media, VideoFile):
        return ""
    manifest, commands = "INDEX", []
    if isinstance(data, Indexed):
        manifest = shlex.quote(data.manifest)
    else:
        told = lookup.describe_dataset(data)
        fields = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in told["fields"].items()
            if value != ""
        ]
        words = shlex.join([told["source"], *fields])
        commands.append(f"python -m vrl_jax.data.index {words} --out={manifest}")
    commands += [
        f"python -m vrl_jax.data.prepare {manifest} --out=SHARDS --short-side={short_side}",
        "--data='Prepared root=SHARDS'",
    ]
    return "\n".join(f"  {command}" for command in commands)
