"""What the loader costs above bare decoding, whether its memory is level, what transcoding brings.

`python benchmarks/loader.py --clips=/path/to/kinetics/clips --workers=2 --json=loader.json`

Every number of a run comes from the same files, the same number of processes and interleaved
rounds on one machine. Clips per second tell about that machine alone; only the ratios are claims.
Files are read from the page cache: what disks cost is not measured here (the doctor does that).
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from vrl_jax.data import frame_sampling
from vrl_jax.data.data_loader import Loader, train_batches
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.transcoded import Prepared
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.tools.video_index import index_videos
from vrl_jax.data.tools.video_transcoder import transcode_videos
from vrl_jax.data.video.video_decoder import ANY_METADATA
from vrl_jax.data.video_dataset import VideoDataset

SAMPLING, SIZE = Sampling(frames=16, stride=4, clips=1), (128, 171)
BATCH, FRAMES = 16, 300
GOALS = {"pipeline / bare loop": 0.9, "prepared / originals": 3.0}


def rendered(number: int) -> Iterator[av.VideoFrame]:
    """Yield the frames of a rendered video."""
    with Synthetic(frames=FRAMES).pretrain()[number].media.open() as reader:
        for frame in range(FRAMES):
            image = reader.read(np.array([[frame]]), (256, 340))[0, 0]
            yield av.VideoFrame.from_ndarray(image, "rgb24")


def decoded(path: pathlib.Path) -> Iterator[av.VideoFrame]:
    """Yield the first frames of a file."""
    with av.open(str(path), **ANY_METADATA) as container:
        yield from itertools.islice(container.decode(video=0), FRAMES)


def encode(frames: Iterator[av.VideoFrame], target: pathlib.Path) -> None:
    """Write frames as Kinetics has them: 340 by 256 pixels, a keyframe every 250 frames."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "250"})
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number, frame in enumerate(frames):
            scaled = frame.reformat(340, 256, "yuv420p")
            scaled.pts, scaled.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode())


def make_sets(
    clips: pathlib.Path | None, count: int, root: pathlib.Path
) -> dict[str, VideoDataset]:
    """Write the same videos three ways: as Kinetics has them, prepared, and small."""
    if clips:
        files = sorted(at for at in clips.rglob("*") if at.is_file())
        if not files:
            raise ValueError(f"no video in {clips}")
    folder = root / "clips"
    for split in ("train", "val"):
        (folder / split / "all").mkdir(parents=True)
    for number in range(count):
        frames = decoded(files[number % len(files)]) if clips else rendered(number)
        encode(frames, folder / "train" / "all" / f"{number}.mp4")
    (folder / "val" / "all" / "0.mp4").symlink_to(folder / "train" / "all" / "0.mp4")
    data = ClassFolders(str(folder))
    index_videos(data, root / "index")
    sets = {"originals": data.train()}
    for name, side in (("prepared", 128), ("small", 64)):
        transcode_videos(root / "index", root / name, side)
        sets[name] = Prepared(str(root / name)).train()
    return sets


def read_clip(task: tuple[VideoDataset, int]) -> int:
    """Open a video and read one random clip of it, as a user's own loop would."""
    source, number = task
    with source[number % len(source)].media.open() as reader:
        rng = np.random.default_rng(number)
        frames = frame_sampling.random_clips(rng, reader.num_frames, reader.fps, SAMPLING)
        return len(reader.read(frames, SIZE))


def bare_rate(pool, source: VideoDataset, clips: int) -> float:
    """Return clips per second of processes that do nothing but decode."""
    began = time.perf_counter()
    done = sum(pool.imap_unordered(read_clip, [(source, number) for number in range(clips)], 4))
    return done / (time.perf_counter() - began)


def pipeline_rate(source: VideoDataset, clips: int, loader: Loader) -> float:
    """Return clips per second of the whole loader, its start left out."""
    lanes = loader.workers * loader.threads  # batches that are in the making at any time
    count = -(-clips // (BATCH * lanes)) * lanes
    batches = train_batches(source, SAMPLING, SIZE, batch=BATCH, seed=0, loader=loader)
    try:
        for _ in range(lanes):
            next(batches)
        began = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count * BATCH / (time.perf_counter() - began)
    finally:
        batches.close()


def resident() -> list[int]:
    """Return the resident megabytes of every process that this one has started."""
    found = []
    for child in multiprocessing.active_children():
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        found.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
    return found


def memory(source: VideoDataset, clips: int, loader: Loader) -> dict[str, list[int]]:
    """Return megabytes per worker after a tenth of the clips and after all of them."""
    batches = train_batches(source, SAMPLING, (56, 56), batch=BATCH, seed=0, loader=loader)
    try:
        seen = {}
        for name, share in (("after a tenth", 0.1), ("at the end", 0.9)):
            for _ in range(max(1, round(share * clips / BATCH))):
                next(batches)
            seen[name] = resident()
        return seen
    finally:
        batches.close()


def measure(sets: dict[str, VideoDataset], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return clips per second of every contestant, one number a round."""
    loader = Loader(workers=arguments.workers, threads=arguments.threads)
    rates = {"bare loop": [], "pipeline": [], "pipeline, prepared": []}
    for _ in range(arguments.rounds):
        # The pool lives no longer than its turn: idle processes would share the machine.
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            bare_rate(pool, sets["originals"], 4 * arguments.workers)
            rates["bare loop"].append(bare_rate(pool, sets["originals"], arguments.round_clips))
        for name, source in (("pipeline", "originals"), ("pipeline, prepared", "prepared")):
            rates[name].append(pipeline_rate(sets[source], arguments.round_clips, loader))
    return rates


def report(rates: dict[str, list[float]], seen: dict[str, list[int]], command: str) -> str:
    """Return the Markdown that tells a run."""
    lines = [f"`{command}`, {os.cpu_count()} cores", "", "| | clips/s (median) |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(values):.1f} |" for name, values in rates.items()]
    lines += ["", "| ratio, median of rounds | measured | goal |", "|---|---|---|"]
    for name, value in ratios(rates).items():
        lines.append(f"| {name} | {value:.2f} | at least {GOALS[name]} |")
    lines += ["", "| memory of each worker, MB | |", "|---|---|"]
    lines += [f"| {name} | {', '.join(map(str, values))} |" for name, values in seen.items()]
    return "\n".join([*lines, "", "Only the ratios are claims; the rates are this machine's."])


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians over rounds of what is compared."""

    def median(upper, lower):
        return statistics.median(a / b for a, b in zip(rates[upper], rates[lower], strict=True))

    return dict(
        zip(
            GOALS,
            (median("pipeline", "bare loop"), median("pipeline, prepared", "pipeline")),
            strict=True,
        )
    )


def main() -> None:
    """Make the files, measure in rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=pathlib.Path, help="folder of real clips; else rendered")
    parser.add_argument("--videos", type=int, default=16, help="videos to make")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each of the loader's processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-clips", type=int, default=512, help="clips in each measurement")
    parser.add_argument("--memory-clips", type=int, default=10_000)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = make_sets(arguments.clips, arguments.videos, pathlib.Path(folder))
        rates = measure(sets, arguments)
        loader = Loader(workers=arguments.workers, threads=arguments.threads)
        seen = memory(sets["small"], arguments.memory_clips, loader)
    command = shlex.join(["python", *sys.argv])
    print(report(rates, seen, command))
    if arguments.json:
        numbers = {"command": command, "cores": os.cpu_count(), "rates": rates, "memory_mb": seen}
        arguments.json.write_text(json.dumps({**numbers, "ratios": ratios(rates)}, indent=2))


if __name__ == "__main__":
    main()
