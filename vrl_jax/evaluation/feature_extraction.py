"""Feature banks over all devices and hosts; unreadable videos are recorded."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vrl_jax.data.data_loader import Loader, eval_batches, failed_videos
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.probes.feature_bank import FeatureBank, extract_features
from vrl_jax.train.quarantine import Quarantine
from vrl_jax.train.sharding import (
    any_process,
    batch_sharding,
    compiler_options,
    gather,
    replicated_sharding,
    shard_rows,
)


def compile_sharded(
    encode: Callable[[Any, jax.Array], jax.Array], mesh: Mesh
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Compile `encode(weights, clips)`: from this host's clips to the rows of all hosts in turn.

    The weights may be split over the mesh.
    """
    compiled = jax.jit(
        lambda weights, clips: encode(gather(weights, mesh), clips),
        in_shardings=(None, batch_sharding(mesh)),
        out_shardings=replicated_sharding(mesh),
        compiler_options=compiler_options(mesh),
    )
    return lambda weights, clips: jax.device_get(compiled(weights, shard_rows(mesh, clips)))


def host_eval_batches(
    source: VideoDataset, sampling: Sampling, resize: tuple[int, int], batch: int, loader: Loader
) -> Iterator[dict[str, Any]]:
    """Return this host's batches of `eval_batches`."""
    host, hosts = jax.process_index(), jax.process_count()
    return eval_batches(
        source, sampling, resize, batch=batch, host=host, hosts=hosts, loader=loader
    )


def extract_bank(
    encode: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[dict[str, Any]],
    source: VideoDataset,
    *,
    part: str,
    batch: int,
    quarantine: Quarantine,
    step: int = 0,
) -> FeatureBank:
    """Encode all videos of a data set, averaging each video's clips; every host must call it.

    Args:
      encode: clips to rows, see `compile_sharded`.
      batches: see `host_eval_batches`.
      source: the videos.
      part: name of the part, for the quarantine.
      batch: videos per step, over all devices.
      quarantine: list of unreadable videos.
      step: training step, for the quarantine.
    """

    def watched():
        for rows in batches:
            quarantine.record(part, source, failed_videos(rows), step)
            yield rows

    bank = extract_features(encode, watched(), source, rows=batch, hosts=jax.process_count())
    bank = bank._replace(unreadable=any_process(bank.unreadable))
    quarantine.check(part, source, int(bank.unreadable.sum()))
    return bank
