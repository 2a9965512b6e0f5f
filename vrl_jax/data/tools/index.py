"""Look at every video of a data set once and write down what it is.

`python -m vrl_jax.data.index UCF101 root=/data/ucf annotations=/lists split=1 --out=/data/index`
opens all that the data set names, counts frames, decodes the first, the middle and the last, and
writes `manifest.jsonl`, a line a video (readable or not), and `dataset.json`; `--data="Indexed
manifest=/data/index"` trains on the readable ones. A folder alone is `ClassFolders`, and
`module:Class` is any other data set. Stopped at any moment, even by `kill -9`, the same command
goes on where it was. `--exclude=runs/x/quarantine.jsonl` marks videos as unreadable that a run
could not read.
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

import av
import numpy as np
from tqdm import tqdm

from vrl_jax import files
from vrl_jax.data import storage
from vrl_jax.data.dataset import Listing, Splits, Video, VideoError
from vrl_jax.data.datasets import indexed, lookup
from vrl_jax.data.datasets.file_lists import PARTS
from vrl_jax.data.datasets.indexed import Row
from vrl_jax.data.tools.worker_pool import Failure, Pool
from vrl_jax.data.video.decode import ANY_METADATA, VideoFile

PART = "manifest.part.jsonl"  # what it is made of, then the rows so far
ABSENT = "absent"


def index_videos(
    source: Splits, out: Path, workers: int = 2, time_limit: float = 120.0, sha256: bool = False
) -> str:
    """Write the manifest of a data set to the folder `out`.

    Args:
      source: a data set of video files.
      out: made where it is not there; what an earlier call found out in it is kept.
      workers: processes that decode.
      time_limit: seconds after which a video counts as unreadable.
      sha256: whether to hash the files.

    Returns:
      a summary.

    Raises:
      ValueError: `out` holds the index of another data set, or `source` has other media than files.
    """
    if not isinstance(source, Listing):
        raise ValueError(f"only video files can be indexed, and {type(source).__name__} lists none")
    made = {**lookup.describe_dataset(source), "sha256": sha256}
    if (out / indexed.DATASET).is_file():
        rows, about = indexed.load_manifest(out)
        files.check_same_settings(out, about["made"], made, "--out")
        (out / PART).unlink(missing_ok=True)
        return f"{out} is finished (to index again, delete it)\n{summarize_index(rows, about)}"
    rows, media, about = _list(source)
    out.mkdir(parents=True, exist_ok=True)
    done = _resume(out, made)
    left = [number for number, row in enumerate(rows) if _key(row) not in done]
    rows = [replace(done.get(_key(row), row), splits=row.splits) for row in rows]
    with (out / PART).open("a") as part, Pool(workers, time_limit) as pool:
        found = pool.map(_examine, [(media[number], sha256) for number in left])
        for at, result in tqdm(found, "index", total=len(left), unit="video", mininterval=1):
            values = {"reason": result.reason} if isinstance(result, Failure) else result
            row = rows[left[at]] = replace(rows[left[at]], **values)
            part.write(row.to_json())
            part.flush()
    indexed.save_manifest(out, rows, {**about, "made": made})
    (out / PART).unlink()
    return summarize_index(*indexed.load_manifest(out))


def exclude_videos(path: Path, out: Path) -> str:
    """Mark the videos of a quarantine list as unreadable; returns a summary.

    Args:
      path: lines with `id`, `reason` and perhaps `part`, the split that alone is meant.
      out: the folder of a finished index.

    Raises:
      ValueError: an id is unknown, or the index is not finished.
    """
    rows, about = indexed.read_manifest(out)
    places = collections.defaultdict(list)
    for number, row in enumerate(rows):
        places[row.id].append(number)
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        wanted = {entry["part"]} if "part" in entry else set(PARTS)
        at = [number for number in places[entry["id"]] if wanted & set(rows[number].splits)]
        if not at:
            raise ValueError(f"{path}: {out} has no video {entry['id']!r} in {sorted(wanted)}")
        for number in at:
            rows[number] = replace(rows[number], ok=False, reason=entry["reason"])
    indexed.save_manifest(out, rows, about)
    return summarize_index(*indexed.load_manifest(out))


def summarize_index(rows: list[Row], about: Mapping[str, Any]) -> str:
    """Return what a person wants to know of an index, in a few lines."""
    splits = ", ".join(f"{count} {part}" for part, count in about["splits"].items())
    hours = sum(row.seconds for row in rows) / 3600
    lines = [f"{len(rows)} videos, {about['readable']} readable ({splits}), {hours:.2f} hours"]
    reasons = collections.Counter(row.reason for row in rows if not row.ok)
    lines += [f"  {count} not readable: {reason}" for reason, count in reasons.most_common(8)]
    for label, names in about["classes"].items():
        good = collections.Counter(row.labels[label] for row in rows if row.ok)
        bad = collections.Counter(row.labels[label] for row in rows if not row.ok)
        counts = sorted(good[number] for number in range(len(names)))
        middle = statistics.median(counts)
        lines.append(
            f"{len(names)} of {label}: {counts[0]} to {counts[-1]} videos each, median {middle:g}"
        )
        worst = (f"{names[number]} ({count})" for number, count in bad.most_common(5))
        lines += ["  most not readable: " + ", ".join(worst)] if bad else []
    return "\n".join(lines)


def _list(source: Listing) -> tuple[list[Row], list[VideoFile], dict[str, Any]]:
    """Return rows that nothing is known of yet, their media, and what `dataset.json` says."""
    rows, media, repeated = {}, {}, 0
    for part in ("train", "test", "pretrain"):
        listed = source.list_part(part)
        for video in listed.videos:
            row = _row(video, getattr(source, "root", ""))
            key = _key(row)
            splits = rows[key].splits if key in rows else ()
            repeated += part in splits
            rows[key] = replace(row, splits=tuple(dict.fromkeys((*splits, part))))
            media[key] = video.media
    if repeated:
        print(f"{repeated} videos are named twice in one split: kept once", file=sys.stderr)
    about = {"classes": dict(listed.classes), "mirror_safe": listed.mirror_safe}
    return list(rows.values()), list(media.values()), about


def _row(video: Video, root: str) -> Row:
    if not isinstance(video.media, VideoFile):
        kind = type(video.media).__name__
        raise ValueError(f"{video.id}: only video files can be indexed, and it is {kind}")
    if storage.is_remote(video.media.path):
        raise ValueError(
            f"{video.media.path}: index a local copy of the videos; `Indexed` then takes them from "
            f"there with root={root}"
        )
    path = os.path.abspath(video.media.path)
    return Row(video.id, (), path, os.path.relpath(path, root or "/"), dict(video.labels))


def _key(row: Row) -> tuple:
    return row.id, row.path, tuple(sorted(row.labels.items()))


def _resume(out: Path, made: Mapping[str, Any]) -> dict[tuple, Row]:
    """Return the rows of an interrupted call, and leave the file so that more can be added."""
    path = out / PART
    text = path.read_text() if path.is_file() else ""
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [json.dumps(made)]
    files.check_same_settings(out, json.loads(header), made, "--out")
    files.write_text(path, "".join(f"{line}\n" for line in (header, *lines)))
    rows = map(Row.from_json, lines)
    return {_key(row): row for row in rows if row.reason != ABSENT}


def _examine(task: tuple[VideoFile, bool]) -> dict[str, Any]:
    """Return what a file is, as values of a `Row`."""
    media, sha256 = task
    if not os.path.isfile(media.path):
        return {"reason": ABSENT}
    found = {"bytes": os.path.getsize(media.path)}
    if sha256:
        with open(media.path, "rb") as file:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return found | _measure(media) | {"ok": True}
    except VideoError as error:
        return found | {"reason": str(error).removeprefix(f"{media.path}: ")}


def _measure(media: VideoFile) -> dict[str, Any]:
    """Return what a video is; `VideoError` unless its first, middle and last frame decode."""
    with media.open() as reader:
        last = reader.num_frames - 1
        reader.read(np.array([[0, last // 2, last]]), (16, 16))
        frames, fps = reader.num_frames, reader.fps
    with av.open(media.path, **ANY_METADATA) as container:
        first = next(container.decode(video=0))
    height, width = first.height, first.width
    if round(first.rotation / 90) % 2:
        height, width = width, height
    return {
        "frames": frames,
        "fps": fps,
        "height": height,
        "width": width,
        "rotation": first.rotation,
        "seconds": round(frames / fps, 3) if fps else 0.0,
    }


def main(argv: list[str] | None = None) -> None:
    """Index a data set, or exclude videos from an index, and print a summary."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m vrl_jax.data.index", description=__doc__, formatter_class=form
    )
    parser.add_argument(
        "source", nargs="*", help="data set (or folder), then its fields, key=value"
    )
    parser.add_argument(
        "--out", type=storage.local_path, required=True, help="folder for the index"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for a video")
    parser.add_argument("--sha256", action="store_true", help="hash the files, too")
    parser.add_argument("--exclude", type=Path, help="quarantine list of videos to mark")
    given = parser.parse_intermixed_args(argv)
    if bool(given.source) == bool(given.exclude):
        parser.error("give either a data set to index or --exclude")
    try:
        if given.exclude:
            print(exclude_videos(given.exclude, given.out))
        else:
            source = lookup.build_dataset(given.source[0], given.source[1:])
            if not isinstance(source, Listing):
                raise ValueError(f"{given.source[0]} is not a data set of video files")
            print(index_videos(source, given.out, given.workers, given.time_limit, given.sha256))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}".replace("--config.data.", ""))
