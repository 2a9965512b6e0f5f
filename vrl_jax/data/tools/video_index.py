"""Index a data set: check every video once and write a manifest.

`python -m vrl_jax.data.index UCF101 root=/data/ucf annotations=/lists split=1 --out=/data/index`
opens all videos that the data set lists, counts their frames and decodes the first, middle and last
frame. It writes `manifest.jsonl`, one line per video, readable or not, and `dataset.json`.
`--data="Indexed manifest=/data/index"` trains on the readable videos. The data set may also be a
folder, for `ClassFolders`, or `module:Class`. After any interruption, even `kill -9`, the same
command resumes. `--exclude=runs/x/quarantine.jsonl` marks the videos that a run could not read as
unreadable.
"""

import argparse
import collections
import hashlib
import json
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vrl_jax import atomic_files
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets import dataset_lookup, indexed
from vrl_jax.data.datasets.file_lists import PARTS
from vrl_jax.data.datasets.indexed import Row
from vrl_jax.data.tools.worker_pool import Failure, Pool
from vrl_jax.data.video.video_decoder import (
    VideoFile,
    frame_orientation,
    open_video,
    upright_size,
)
from vrl_jax.data.video_dataset import Listing, MissingPart, Splits, Video, VideoError

PART = "manifest.part.jsonl"  # the settings, then the rows written so far
MISSING = "missing"


def index_videos(
    source: Splits, out: Path, workers: int = 2, time_limit: float = 120.0, sha256: bool = False
) -> str:
    """Write the manifest of a data set to the folder `out`.

    Args:
      source: a data set of video files.
      out: output folder, created if needed; an interrupted call resumes in it.
      workers: decoding processes.
      time_limit: seconds after which a video counts as unreadable.
      sha256: whether to hash the files.

    Returns:
      a summary.

    Raises:
      ConfigMismatch: `out` has the index of another data set.
      ValueError: the videos of `source` are not files.
    """
    if not isinstance(source, Listing):
        raise ValueError(
            f"only data sets of video files can be indexed, got {type(source).__name__}, which has "
            "no `list_part`"
        )
    settings = {**dataset_lookup.describe_dataset(source), "sha256": sha256}
    if (out / indexed.DATASET).is_file():
        rows, about = indexed.load_manifest(out)
        atomic_files.check_same_settings(out, about["made"], settings, "--out")
        (out / PART).unlink(missing_ok=True)
        return f"{out} is finished (to index again, delete it)\n{summarize_index(rows, about)}"
    rows, media, about = _list_rows(source)
    out.mkdir(parents=True, exist_ok=True)
    done = _resume(out, settings)
    todo = [number for number, row in enumerate(rows) if _key(row) not in done]
    rows = [replace(done.get(_key(row), row), splits=row.splits) for row in rows]
    with (out / PART).open("a") as part, Pool(workers, time_limit) as pool:
        results = pool.map(_check_video, [(media[number], sha256) for number in todo])
        progress = tqdm(results, "index", total=len(todo), unit="video", mininterval=1)
        for task, result in progress:
            values = {"reason": result.reason} if isinstance(result, Failure) else result
            row = rows[todo[task]] = replace(rows[todo[task]], **values)
            part.write(row.to_json())
            part.flush()
    indexed.save_manifest(out, rows, {**about, "made": settings})
    (out / PART).unlink()
    return summarize_index(*indexed.load_manifest(out))


def exclude_videos(path: Path, out: Path) -> str:
    """Mark the videos of a quarantine list as unreadable and return a summary.

    Args:
      path: lines with `id`, `reason` and optionally `part`, which restricts them to that part.
      out: folder of a finished index.

    Raises:
      ValueError: an id is unknown, or the index is unfinished.
    """
    rows, about = indexed.read_manifest(out)
    numbers_of = collections.defaultdict(list)
    for number, row in enumerate(rows):
        numbers_of[row.id].append(number)
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        parts = {entry["part"]} if "part" in entry else set(PARTS)
        numbers = [n for n in numbers_of[entry["id"]] if parts & set(rows[n].splits)]
        if not numbers:
            raise ValueError(f"{path}: {out} has no video {entry['id']!r} in {sorted(parts)}")
        for number in numbers:
            reason = entry["reason"].rpartition(f"{rows[number].relative}: ")[2]  # without its path
            rows[number] = replace(rows[number], ok=False, reason=reason)
    indexed.save_manifest(out, rows, about)
    return summarize_index(*indexed.load_manifest(out))


def summarize_index(rows: list[Row], about: Mapping[str, Any]) -> str:
    """Return a summary of an index in a few lines."""
    splits = ", ".join(f"{count} {part}" for part, count in about["splits"].items())
    hours = sum(row.seconds for row in rows) / 3600
    lines = [f"{len(rows)} videos, {about['readable']} readable ({splits}), {hours:.2f} hours"]
    reasons = collections.Counter(row.reason for row in rows if not row.ok)
    examples = {row.reason: row.id for row in reversed(rows) if not row.ok}
    lines += [
        f"  {count} unreadable: {reason} (such as {examples[reason]})"
        for reason, count in reasons.most_common(8)
    ]
    several = sum(row.streams > 1 for row in rows)
    if several:
        lines.append(
            f"  {several} with several video streams: the one with the largest frames is read"
        )
    for label, names in about["classes"].items():
        readable, unreadable = (
            collections.Counter(
                number
                for row in rows
                if row.ok == ok and label in row.labels
                for number in np.atleast_1d(row.labels[label]).tolist()
            )
            for ok in (True, False)
        )
        counts = sorted(readable[number] for number in range(len(names)))
        median = statistics.median(counts)
        lines.append(
            f"{label}: {len(names)} classes with {counts[0]} to {counts[-1]} videos, "
            f"median {median:g}"
        )
        worst = (f"{names[number]} ({count})" for number, count in unreadable.most_common(5))
        lines += ["  most unreadable: " + ", ".join(worst)] if unreadable else []
    return "\n".join(lines)


def _list_rows(source: Listing) -> tuple[list[Row], list[VideoFile], dict[str, Any]]:
    """Return unchecked rows, their media, and what `VideoList` has of classes and safety."""
    rows, media, classes, repeated = {}, {}, {}, 0
    for part in ("train", "test", "pretrain"):
        try:
            videos = source.list_part(part)
        except MissingPart:
            continue
        classes |= videos.classes
        for video in videos.videos:
            row = _row(video, getattr(source, "root", ""))
            key = _key(row)
            splits = rows[key].splits if key in rows else ()
            repeated += part in splits
            rows[key] = replace(row, splits=tuple(dict.fromkeys((*splits, part))))
            media[key] = video.media
    if repeated:
        print(f"{repeated} videos are listed twice in one part: kept once", file=sys.stderr)
    if not rows:
        source.list_part("pretrain")  # says what is missing
    about = {
        "classes": classes,
        "mirror_safe": videos.mirror_safe,
        "reverse_safe": videos.reverse_safe,
    }
    return list(rows.values()), list(media.values()), about


def _row(video: Video, root: str) -> Row:
    if not isinstance(video.media, VideoFile):
        kind = type(video.media).__name__
        raise ValueError(f"{video.id}: only video files can be indexed, got {kind}")
    if remote_paths.is_remote(video.media.path):
        raise ValueError(
            f"{video.media.path} is on an object store: index a local copy of the videos, then "
            f"read the originals with Indexed and root={root}"
        )
    path = os.path.abspath(video.media.path)
    return Row(video.id, (), path, os.path.relpath(path, root or "/"), dict(video.labels))


def _key(row: Row) -> tuple:
    return row.id, row.path, tuple(sorted(row.labels.items()))


def _resume(out: Path, settings: Mapping[str, Any]) -> dict[tuple, Row]:
    """Return the rows of an interrupted call, and drop an incomplete last line of their file."""
    path = out / PART
    text = path.read_text() if path.is_file() else ""
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [json.dumps(settings)]
    atomic_files.check_same_settings(out, json.loads(header), settings, "--out")
    rows = [
        indexed.parse_row(f"{path}, line {number}", line, Row)
        for number, line in enumerate(lines, 2)
    ]
    atomic_files.write_text(path, "".join(f"{line}\n" for line in (header, *lines)))
    return {_key(row): row for row in rows if row.reason != MISSING}


def _check_video(task: tuple[VideoFile, bool]) -> dict[str, Any]:
    """Return the properties of a file as values of a `Row`."""
    media, sha256 = task
    if not os.path.isfile(media.path):
        return {"reason": MISSING}
    properties = {"bytes": os.path.getsize(media.path)}
    if sha256:
        with open(media.path, "rb") as file:
            properties["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return properties | _video_properties(media) | {"ok": True}
    except VideoError as error:
        return properties | {"reason": str(error).removeprefix(f"{media.path}: ")}


def _video_properties(media: VideoFile) -> dict[str, Any]:
    """Return the properties of a video.

    Raises `VideoError` unless its first, middle and last frame decode.
    """
    with media.open() as reader:
        last = reader.num_frames - 1
        reader.read(np.array([[0, last // 2, last]]), (16, 16))
        frames, fps = reader.num_frames, reader.fps
    container, streams = open_video(media.path)
    with container:
        first = next(container.decode(streams[0]))
    height, width = upright_size(first)
    mirrored, rotation = frame_orientation(first)
    return {
        "frames": frames,
        "fps": fps,
        "height": height,
        "width": width,
        "mirrored": mirrored,
        "rotation": rotation,
        "seconds": round(frames / fps, 3) if fps else 0.0,
        "streams": len(streams),
    }


def main(argv: list[str] | None = None) -> None:
    """Index a data set, or exclude videos from an index, and print a summary."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl index", description=__doc__, formatter_class=form)
    parser.add_argument("source", nargs="*", help="data set or folder, then fields as key=value")
    parser.add_argument("--out", type=remote_paths.local_path, required=True, help="output folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0: none")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds per video")
    parser.add_argument("--sha256", action="store_true", help="also hash the files")
    parser.add_argument(
        "--exclude", type=remote_paths.local_path, help="quarantine list of videos to exclude"
    )
    args = parser.parse_intermixed_args(argv)
    if bool(args.source) == bool(args.exclude):
        parser.error("pass either a data set to index or --exclude")
    try:
        if args.exclude:
            print(exclude_videos(args.exclude, args.out))
        else:
            source = dataset_lookup.build_dataset(args.source[0], args.source[1:])
            print(index_videos(source, args.out, args.workers, args.time_limit, args.sha256))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}".replace("--config.data.", ""))
