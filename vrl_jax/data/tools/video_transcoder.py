"""Transcode an indexed data set to shards from which clips are read several times faster.

`python -m vrl_jax.data.prepare MANIFEST_DIR --out=DIR --short-side=128` writes all readable videos
to ArrayRecord shards as small H.264 files with a keyframe every 16 frames. Frame i is the upright
frame i of the original. `--data="Prepared root=DIR"` trains on them. After any interruption, even
`kill -9`, the same command resumes at the first unfinished shard. The shards depend neither on
interruptions nor on the number of workers. `failed.jsonl` lists videos that cannot be transcoded.
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

from vrl_jax import atomic_files, check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets import indexed, transcoded
from vrl_jax.data.datasets.indexed import Row
from vrl_jax.data.datasets.transcoded import Entry
from vrl_jax.data.frame_sampling import Sampling, random_clips
from vrl_jax.data.tools.h264 import FPS, scaled_size, transcode_video
from vrl_jax.data.tools.worker_pool import Failure, Pool
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import VideoError, VideoHandle

SETTINGS, FAILED = "dataset.part.json", "failed.jsonl"
RECORDS = "group_size:1,uncompressed"  # records are read one by one; videos are compressed already
BYTES_PER_PIXEL = 0.06  # approximate size of transcoded videos, which determines videos per shard
SAMPLE = 32  # videos on which the speed is measured


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
      source: folder of the manifest.
      out: output folder, created if needed; finished shards in it are kept.
      short_side: shorter side of the frames, pixels; smaller videos keep their size.
      workers: transcoding processes.
      shard_mb: approximate size of a shard, megabytes.
      time_limit: seconds after which a video counts as failed.

    Returns:
      the number of videos that failed.

    Raises:
      ConfigMismatch: `out` has shards of another manifest or with other settings.
      ValueError: the manifest is unfinished.
      VideoError: a shard cannot be read back as it was written.
    """
    check.at_least(2, short_side=short_side)
    check.at_least(1, shard_mb=shard_mb)
    rows, about = indexed.load_manifest(source)
    settings = {"manifest": about["hash"], "short_side": short_side, "shard_mb": shard_mb}
    if _prepare_folder(out, settings):
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
    inherited = {
        key: about[key] for key in ("classes", "mirror_safe", "reverse_safe") if key in about
    }
    return _finish(out, paths, rows, {**inherited, **settings})


def assign_shards(rows: list[Row], short_side: int, shard_mb: int) -> list[list[Row]]:
    """Return the videos of each shard, in order, as a pure function of the arguments."""
    shards, limit, size = [], shard_mb * 1e6 / BYTES_PER_PIXEL, np.inf
    for row in rows:
        if size >= limit:
            shards.append([])
            size = 0
        shards[-1].append(row)
        height, width = scaled_size(row.height, row.width, short_side)
        size += row.frames * height * width
    return shards


def _prepare_folder(out: Path, settings: dict[str, Any]) -> bool:
    """Return whether `out` is finished; raises `ConfigMismatch` if it has other settings."""
    path = out / SETTINGS
    finished = (out / indexed.DATASET).is_file()
    if finished:
        path = out / indexed.DATASET
    if path.is_file():
        old = json.loads(path.read_text())
        old = {key: old.get(key) for key in settings}
        atomic_files.check_same_settings(out, old, settings, "--out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(path, json.dumps(settings))
    return finished


def _write_shard(pool: Pool, path: Path, rows: list[Row], short_side: int, progress: tqdm) -> None:
    """Write and verify a shard and its part of `videos.jsonl`, then rename the shard.

    Raises:
      OSError: the disk is full.
      VideoError: a record cannot be read back.
    """
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
    with atomic_files.atomic_path(path) as partial:
        try:
            writer = ArrayRecordWriter(str(partial), RECORDS)
            for entry, mp4 in entries:
                writer.write(transcoded.pack_record(entry.header(), mp4))
            writer.close()
        except RuntimeError as error:  # of ArrayRecord, for instance a full disk
            reason = str(error).partition(";")[0]
            raise OSError(
                f"{path} cannot be written: {reason}; the same command resumes there"
            ) from error
        for number, result in pool.map(_verify, [(partial, entry) for entry, _ in entries]):
            if isinstance(result, Failure):
                name = entries[number][0].id
                raise VideoError(f"{partial} cannot be read back, {name}: {result.reason}")
        text = "".join([*(entry.to_json() for entry, _ in entries), *failed])
        atomic_files.write_text(path.with_suffix(".jsonl"), text)


def _transcode(task: tuple[Row, int]) -> bytes:
    return transcode_video(*task)


def _verify(task: tuple[Path, Entry]) -> None:
    """Raise `VideoError` unless a record has the header and the number of frames written."""
    path, entry = task
    with ArrayRecordDataSource([str(path)]) as shard:
        header, mp4 = transcoded.unpack_record(shard[entry.record])
    with av.open(io.BytesIO(mp4)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    if frames != entry.frames or header != entry.header():
        raise VideoError(f"the record must be {entry.header()}, got {header} and {frames} frames")


def _finish(out: Path, paths: list[Path], rows: list[Row], about: dict[str, Any]) -> int:
    """Write the files that make shards a data set, and remove temporary ones."""
    texts = [path.with_suffix(".jsonl").read_text() for path in paths]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    failed = [line for line in lines if "reason" in json.loads(line)]
    entries = [line for line in lines if "reason" not in json.loads(line)]
    atomic_files.write_text(out / transcoded.VIDEOS, "".join(entries))
    atomic_files.write_text(out / FAILED, "".join(failed))
    videos = [indexed.parse_row(transcoded.VIDEOS, line, Entry) for line in entries]
    ids = {video.id for video in videos}
    counts = {
        "videos": len(videos),
        "failed": len(failed),
        "splits": indexed.count_splits(videos),
        "left_out": indexed.count_splits(row for row in rows if row.id not in ids),
        "shards": len(paths),
        "hash": indexed.hash_rows(videos),
    }
    atomic_files.write_text(out / indexed.DATASET, json.dumps({**about, **counts}, indent=2) + "\n")
    _clean(out)
    return len(failed)


def _clean(out: Path) -> None:
    for path in (*out.glob("videos-*-of-*.jsonl"), out / SETTINGS):
        path.unlink(missing_ok=True)


def measure_speedup(source: Path, out: Path, short_side: int) -> tuple[float, float]:
    """Return random 16-frame clips per second of one process, from originals and from shards.

    Both are read twice, and the second pass is timed, to measure decoding and not the disk.
    """
    paths = {row.id: row.path for row in indexed.load_manifest(source)[0]}
    entries, _ = transcoded.load_entries(out)
    indices = np.linspace(0, len(entries) - 1, min(SAMPLE, len(entries))).round().astype(int)
    sample = [entries[index] for index in indices]
    old: list[VideoHandle] = [VideoFile(paths[entry.id]) for entry in sample]
    new: list[VideoHandle] = [transcoded.open_record(out, entry) for entry in sample]
    return tuple(_clips_per_second(media, short_side) for media in (old, old, new, new))[1::2]


def _clips_per_second(handles: list[VideoHandle], side: int) -> float:
    rng, start = np.random.default_rng(0), time.perf_counter()
    for handle in handles:
        with handle.open() as reader:
            frames = random_clips(rng, reader.num_frames, reader.fps, Sampling(clips=1))
            reader.read(frames, (side, side))
    return len(handles) / (time.perf_counter() - start)


def main(argv: list[str] | None = None) -> None:
    """Transcode the remaining videos, and print the failures and the speedup."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl prepare", description=__doc__, formatter_class=form)
    parser.add_argument("manifest", type=remote_paths.local_path, help="folder of a finished index")
    parser.add_argument("--out", type=remote_paths.local_path, required=True, help="output folder")
    parser.add_argument("--short-side", type=int, default=128, help="of the frames, pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0: none")
    parser.add_argument("--shard-mb", type=int, default=256, help="approximate shard size, MB")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds per video")
    args = parser.parse_args(argv)
    task = (args.manifest, args.out, args.short_side)
    try:
        failed = transcode_videos(*task, args.workers, args.shard_mb, args.time_limit)
        about = transcoded.load_entries(args.out)[1]
        print(f"{args.out}: {about['videos']} videos in {about['shards']} shards")
        if about["videos"]:
            old, new = measure_speedup(*task)
            print(f"clips/s of one process: {old:.1f} before, {new:.1f} now, {new / old:.1f} times")
    except (ValueError, OSError, VideoError) as error:
        sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"error: {failed} videos failed: {args.out / FAILED} has the reasons")
