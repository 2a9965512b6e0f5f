"""Transcode an indexed data set once, so that reading a clip costs a fraction from then on.

`python -m vrl_jax.data.prepare MANIFEST_DIR --out=DIR --short-side=128` writes all readable videos
as small H.264 files with a keyframe every 16 frames into ArrayRecord shards: frame i is frame i of
the original, upright. `--data="Prepared root=DIR"` trains on them. Stopped at
any moment, even by `kill -9`, the same command goes on with the first unfinished shard, and the
shards do not depend on that or on the number of workers. Videos that cannot be transcoded are in
`failed.jsonl`.
"""

import argparse
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from vrl_jax import check, files
from vrl_jax.data import storage
from vrl_jax.data.dataset import VideoError, VideoHandle
from vrl_jax.data.datasets import indexed, transcoded
from vrl_jax.data.datasets.indexed import Row
from vrl_jax.data.datasets.transcoded import Entry
from vrl_jax.data.frame_sampling import Sampling, random_clips
from vrl_jax.data.tools.h264 import FPS, scaled_size, transcode_video
from vrl_jax.data.tools.worker_pool import Failure, Pool
from vrl_jax.data.video.decode import VideoFile

SETTINGS, FAILED = "dataset.part.json", "failed.jsonl"
RECORDS = "group_size:1,uncompressed"  # a record is read alone; video does not compress further
BYTES_PER_PIXEL = 0.06  # what such files come to, roughly: it decides how many videos make a shard
SAMPLE = 32  # videos that the gain is measured on


def transcode_videos(
    source: Path,
    out: Path,
    short_side: int = 128,
    workers: int = 2,
    shard_mb: int = 256,
    time_limit: float = 600.0,
) -> int:
    """Transcode the readable videos of a manifest into shards in the folder `out`.

    Args:
      source: the folder of the manifest.
      out: made where it is not there; the finished shards in it are kept.
      short_side: height or width of the frames, whichever is less, pixels; smaller ones stay.
      workers: processes that transcode.
      shard_mb: what a shard comes to, roughly, megabytes.
      time_limit: seconds after which a video counts as failed.

    Returns:
      how many videos failed.

    Raises:
      ValueError: the manifest is not finished, or `out` holds shards of another or other settings.
      VideoError: a shard does not read back as it was written.
    """
    check.at_least(2, short_side=short_side)
    check.at_least(1, shard_mb=shard_mb)
    rows, about = indexed.load_manifest(source)
    made = {"manifest": about["hash"], "short_side": short_side, "shard_mb": shard_mb}
    if _started(out, made):
        _clean(out)
        return json.loads((out / indexed.DATASET).read_text())["failed"]
    if not about["readable"]:
        raise ValueError(f"{source} has no readable video")
    shards = assign_shards([row for row in rows if row.ok], short_side, shard_mb)
    paths = [
        out / f"videos-{number:05}-of-{len(shards):05}.array_record"
        for number in range(len(shards))
    ]
    total = sum(map(len, shards))
    with Pool(workers, time_limit) as pool, tqdm(total=total, unit="video") as progress:
        for path, shard in zip(paths, shards, strict=True):
            if path.exists():
                progress.update(len(shard))
            else:
                _write_shard(pool, path, shard, short_side, progress)
    kept = {key: about[key] for key in ("classes", "mirror_safe")}
    return _finish(out, paths, rows, {**kept, **made})


def assign_shards(rows: list[Row], short_side: int, shard_mb: int) -> list[list[Row]]:
    """Return the videos of each shard, in order; a function of its arguments alone."""
    shards, limit, size = [], shard_mb * 1e6 / BYTES_PER_PIXEL, np.inf
    for row in rows:
        if size >= limit:
            shards.append([])
            size = 0
        shards[-1].append(row)
        height, width = scaled_size(row.height, row.width, short_side)
        size += row.frames * height * width
    return shards


def _started(out: Path, made: dict[str, Any]) -> bool:
    """Return whether `out` is finished; raises `ValueError` where it was made in another way."""
    path = out / SETTINGS
    finished = (out / indexed.DATASET).is_file()
    if finished:
        path = out / indexed.DATASET
    if path.is_file():
        old = json.loads(path.read_text())
        files.check_same_settings(out, {key: old.get(key) for key in made}, made, "--out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        files.write_text(path, json.dumps(made))
    return finished


def _write_shard(pool: Pool, path: Path, rows: list[Row], short_side: int, progress: tqdm) -> None:
    """Write a shard and its part of `videos.jsonl`; the shard has its name once both are right."""
    results = {}
    for number, result in pool.map(_transcode, [(row, short_side) for row in rows]):
        results[number] = result
        progress.update()
    entries, failed = [], []
    for number, row in enumerate(rows):
        if isinstance(results[number], Failure):
            failed.append(json.dumps({"id": row.id, "reason": results[number].reason}) + "\n")
            continue
        size = scaled_size(row.height, row.width, short_side)
        values = (row.id, row.splits, row.labels, row.frames, row.fps or FPS, *size, row.sha256)
        entries.append((Entry(*values, path.name, len(entries)), results[number]))
    with files.atomic_path(path) as partial:
        writer = ArrayRecordWriter(str(partial), RECORDS)
        for entry, mp4 in entries:
            writer.write(transcoded.pack_record(entry.header(), mp4))
        writer.close()
        for number, result in pool.map(_verify, [(partial, entry) for entry, _ in entries]):
            if isinstance(result, Failure):
                name = entries[number][0].id
                raise VideoError(f"{partial} does not read back, {name}: {result.reason}")
        text = "".join([*(entry.to_json() for entry, _ in entries), *failed])
        files.write_text(path.with_suffix(".jsonl"), text)


def _transcode(task: tuple[Row, int]) -> bytes:
    return transcode_video(*task)


def _verify(task: tuple[Path, Entry]) -> None:
    """Raise `VideoError` unless a record holds the header and as many frames as were written."""
    path, entry = task
    with ArrayRecordDataSource([str(path)]) as shard:
        header, mp4 = transcoded.unpack_record(shard[entry.record])
    with av.open(io.BytesIO(mp4)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    if frames != entry.frames or header != entry.header():
        raise VideoError(f"wanted {entry.header()}, got {header} and {frames} frames")


def _finish(out: Path, paths: list[Path], named: list[Row], about: dict[str, Any]) -> int:
    """Write what makes shards a data set, and remove what making them needed."""
    texts = [path.with_suffix(".jsonl").read_text() for path in paths]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    failed = [line for line in lines if "reason" in json.loads(line)]
    entries = [line for line in lines if "reason" not in json.loads(line)]
    for name, some in ((transcoded.VIDEOS, entries), (FAILED, failed)):
        files.write_text(out / name, "".join(some))
    rows = list(map(Entry.from_json, entries))
    here = {row.id for row in rows}
    counts = {
        "videos": len(rows),
        "failed": len(failed),
        "splits": indexed.count_splits(rows),
        "left_out": indexed.count_splits(row for row in named if row.id not in here),
        "shards": len(paths),
        "hash": indexed.hash_rows(rows),
    }
    files.write_text(out / indexed.DATASET, json.dumps({**about, **counts}, indent=2) + "\n")
    _clean(out)
    return len(failed)


def _clean(out: Path) -> None:
    for path in (*out.glob("videos-*-of-*.jsonl"), out / SETTINGS):
        path.unlink(missing_ok=True)


def measure_gain(source: Path, out: Path, short_side: int) -> tuple[float, float]:
    """Return how many random 16-frame clips a second one process reads, originals and shards.

    Both are read twice, and the second time counts: no disk is measured.
    """
    paths = {row.id: row.path for row in indexed.load_manifest(source)[0]}
    entries, _ = transcoded.load_entries(out)
    chosen = np.linspace(0, len(entries) - 1, min(SAMPLE, len(entries))).round().astype(int)
    picked = [entries[number] for number in chosen]
    old: list[VideoHandle] = [VideoFile(paths[entry.id]) for entry in picked]
    new: list[VideoHandle] = [transcoded.open_record(out, entry) for entry in picked]
    return tuple(_clips_per_second(media, short_side) for media in (old, old, new, new))[1::2]


def _clips_per_second(media: list[VideoHandle], side: int) -> float:
    rng, start = np.random.default_rng(0), time.perf_counter()
    for each in media:
        with each.open() as reader:
            frames = random_clips(rng, reader.num_frames, reader.fps, Sampling(clips=1))
            reader.read(frames, (side, side))
    return len(media) / (time.perf_counter() - start)


def main(argv: list[str] | None = None) -> None:
    """Transcode what is left, say what failed and how much faster clips are read."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m vrl_jax.data.prepare", description=__doc__, formatter_class=form
    )
    parser.add_argument("manifest", type=storage.local_path, help="the folder of a finished index")
    parser.add_argument(
        "--out", type=storage.local_path, required=True, help="folder for the shards"
    )
    parser.add_argument("--short-side", type=int, default=128, help="of the frames, pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--shard-mb", type=int, default=256, help="megabytes in a shard, roughly")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds for a video")
    given = parser.parse_args(argv)
    work = (given.manifest, given.out, given.short_side)
    try:
        failed = transcode_videos(*work, given.workers, given.shard_mb, given.time_limit)
        about = transcoded.load_entries(given.out)[1]
        print(f"{given.out}: {about['videos']} videos in {about['shards']} shards")
        if about["videos"]:
            old, new = measure_gain(*work)
            print(f"clips/s of one process: {old:.1f} before, {new:.1f} now, {new / old:.1f} times")
    except (ValueError, OSError, VideoError) as error:
        sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"error: {failed} videos failed: {given.out / FAILED} says why")
