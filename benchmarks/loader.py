"""Benchmark of the loader: cost above bare decoding, memory over time, and gain by transcoding.

`python benchmarks/loader.py --clips=/path/to/kinetics/clips --workers=2 --json=loader.json`

All numbers come from the same files, the same number of processes and interleaved rounds. Clips
per second depend on the machine; the ratios are the results. Parquet and a mixture of three sets of
the same videos are compared with bare decoding by processor time, in one process and in turns.
Files are read from the page cache; `vrl_jax.doctor` measures the cost of disks.
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
import tarfile
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from vrl_jax.data import frame_sampling
from vrl_jax.data.data_loader import Loader, train_batches, train_dataset
from vrl_jax.data.datasets.mixture import Mixture, Share
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.table_shards import Parquet
from vrl_jax.data.datasets.tar_shards import WebDataset
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
PAIRS = ("folders", "parquet", "mixture")  # compared with bare decoding by processor time
WHOLE = Sampling(frames=16, stride=20, clips=1)  # pairs: a clip begins where a short video does
GROUP = 10  # videos in a row group, as Hugging Face `datasets` writes them


def render_frames(number: int) -> Iterator[av.VideoFrame]:
    """Yield the frames of a rendered video."""
    with Synthetic(frames=FRAMES).pretrain()[number].media.open() as reader:
        for frame in range(FRAMES):
            image = reader.read(np.array([[frame]]), (256, 340))[0, 0]
            yield av.VideoFrame.from_ndarray(image, "rgb24")


def decode_frames(path: pathlib.Path) -> Iterator[av.VideoFrame]:
    """Yield the first frames of a file."""
    with av.open(str(path), **ANY_METADATA) as container:
        yield from itertools.islice(container.decode(video=0), FRAMES)


def write_video(frames: Iterator[av.VideoFrame], path: pathlib.Path) -> None:
    """Write frames in the format of Kinetics: 340 x 256 pixels, a keyframe every 250 frames."""
    with av.open(str(path), "w") as container:
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
    """Write the same videos in three formats: as in Kinetics, transcoded, and small."""
    if clips:
        files = sorted(path for path in clips.rglob("*") if path.is_file())
        if not files:
            raise ValueError(f"--clips must be a folder with videos, got {clips}")
    folder = root / "clips"
    for split in ("train", "val"):
        (folder / split / "all").mkdir(parents=True)
    for number in range(count):
        frames = decode_frames(files[number % len(files)]) if clips else render_frames(number)
        write_video(frames, folder / "train" / "all" / f"{number}.mp4")
    (folder / "val" / "all" / "0.mp4").symlink_to(folder / "train" / "all" / "0.mp4")
    data = ClassFolders(str(folder))
    index_videos(data, root / "index")
    sets = {"originals": data.train()}
    for name, side in (("prepared", 128), ("small", 64)):
        transcode_videos(root / "index", root / name, side)
        sets[name] = Prepared(str(root / name)).train()
    return sets


def pack_sets(originals: VideoDataset, root: pathlib.Path) -> dict[str, VideoDataset]:
    """Return the same videos in folders, in Parquet, and in a mixture of both and tars."""
    import pyarrow as pa
    import pyarrow.parquet

    files = [pathlib.Path(video.media.path) for video in originals.videos]
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"video": pa.array(cells, kind), "label": [0] * len(files)})
    pa.parquet.write_table(table, root / "videos.parquet", row_group_size=GROUP)
    with tarfile.open(root / "videos.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    sets = (
        ClassFolders(str(root / "clips")),
        Parquet(train_shards=str(root / "videos.parquet")),
        WebDataset(str(root / "videos.tar")),
    )
    mixture = Mixture(tuple(map(Share, sets, (0.5, 0.3, 0.2))))
    sources = (originals, sets[1].pretrain(), mixture.pretrain())
    return dict(zip(PAIRS, sources, strict=True))


def measure_pairs(sets: dict[str, VideoDataset], clips: int, rounds: int) -> dict[str, list[float]]:
    """Return the rate of the loader relative to bare decoding of the same clips, by round.

    Each clip is read by the loader and then bare, in this process, and timed by the processor. The
    value of a round is the median over its clips: a processor that others share has two speeds.
    """
    ratios = {name: [] for name in PAIRS}
    for number in range(rounds):
        found = {name: [] for name in PAIRS}
        loaders = {
            name: train_dataset(sets[name], WHOLE, SIZE, batch=1, seed=number) for name in PAIRS
        }
        for step in range(1 + clips):
            for name, dataset in loaders.items():
                began = time.process_time()
                (index,) = dataset[step]["index"].tolist()
                middle = time.process_time()
                read_clip((sets["folders"], index), WHOLE)
                ratio = (time.process_time() - middle) / (middle - began)
                if step:  # the first is for warming up
                    found[name].append(ratio)
        for name in PAIRS:
            ratios[name].append(statistics.median(found[name]))
    return ratios


def read_clip(task: tuple[VideoDataset, int], sampling: Sampling = SAMPLING) -> int:
    """Open a video and read one random clip, as in a plain loop."""
    source, number = task
    with source[number % len(source)].media.open() as reader:
        rng = np.random.default_rng(number)
        frames = frame_sampling.random_clips(rng, reader.num_frames, reader.fps, sampling)
        return len(reader.read(frames, SIZE))


def measure_bare_rate(pool, source: VideoDataset, clips: int) -> float:
    """Return clips per second of processes that only decode."""
    began = time.perf_counter()
    done = sum(pool.imap_unordered(read_clip, [(source, number) for number in range(clips)], 4))
    return done / (time.perf_counter() - began)


def measure_loader_rate(source: VideoDataset, clips: int, loader: Loader) -> float:
    """Return clips per second of the loader, without its start."""
    lanes = loader.workers * loader.threads  # batches being prepared at any time
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


def list_resident_mb() -> list[int]:
    """Return the resident memory, in MB, of every child process."""
    sizes = []
    for child in multiprocessing.active_children():
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        sizes.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
    return sizes


def measure_memory(source: VideoDataset, clips: int, loader: Loader) -> dict[str, list[int]]:
    """Return the memory of each worker, in MB, after a tenth of the clips and after all of them."""
    batches = train_batches(source, SAMPLING, (56, 56), batch=BATCH, seed=0, loader=loader)
    try:
        memory = {}
        for name, share in (("after a tenth", 0.1), ("at the end", 0.9)):
            for _ in range(max(1, round(share * clips / BATCH))):
                next(batches)
            memory[name] = list_resident_mb()
        return memory
    finally:
        batches.close()


def measure_rates(
    sets: dict[str, VideoDataset], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return clips per second of bare decoding and of the loader, by round."""
    loader = Loader(workers=args.workers, threads=args.threads)
    rates = {"bare loop": [], "pipeline": [], "pipeline, prepared": []}
    for _ in range(args.rounds):
        # The pool ends with its turn, since idle processes would compete for the machine.
        with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
            measure_bare_rate(pool, sets["originals"], 4 * args.workers)
            rate = measure_bare_rate(pool, sets["originals"], args.round_clips)
            rates["bare loop"].append(rate)
        for name, source in (("pipeline", "originals"), ("pipeline, prepared", "prepared")):
            rates[name].append(measure_loader_rate(sets[source], args.round_clips, loader))
    return rates


def tabulate(
    rates: dict[str, list[float]],
    pairs: dict[str, list[float]],
    memory: dict[str, list[int]],
    command: str,
) -> str:
    """Return the report in Markdown."""
    lines = [f"`{command}`, {os.cpu_count()} cores"]
    if rates:
        lines += ["", "| | clips/s (median) |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(values):.1f} |" for name, values in rates.items()]
    lines += ["", "| ratio, median of rounds | measured | goal |", "|---|---|---|"]
    for name, value in compute_ratios(rates).items():
        lines.append(f"| {name} | {value:.2f} | at least {GOALS[name]} |")
    for name in PAIRS:
        value = statistics.median(pairs[name])
        lines.append(f"| {name} / bare decoding, processor time | {value:.2f} | at least 0.9 |")
    if memory:
        lines += ["", "| memory of each worker, MB | |", "|---|---|"]
    lines += [f"| {name} | {', '.join(map(str, values))} |" for name, values in memory.items()]
    return "\n".join([*lines, "", "The ratios are the results; rates depend on the machine."])


def compute_ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the ratios of `GOALS`, medians over rounds; none without rates."""
    if not rates:
        return {}
    compared = (("pipeline", "bare loop"), ("pipeline, prepared", "pipeline"))
    return {name: compute_ratio(rates, *pair) for name, pair in zip(GOALS, compared, strict=True)}


def compute_ratio(rates: dict[str, list[float]], upper: str, lower: str) -> float:
    """Return the median over rounds of the ratio of two rates."""
    return statistics.median(a / b for a, b in zip(rates[upper], rates[lower], strict=True))


def main() -> None:
    """Write the videos, measure in rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clips", type=pathlib.Path, help="folder of real clips (default: rendered)"
    )
    parser.add_argument("--videos", type=int, default=16, help="number of videos")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="per process of the loader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-clips", type=int, default=512, help="per measurement; 0: none")
    parser.add_argument("--pair-clips", type=int, default=32, help="per paired measurement")
    parser.add_argument("--memory-clips", type=int, default=10_000, help="0: none")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = make_sets(args.clips, args.videos, pathlib.Path(folder))
        pairs = measure_pairs(
            pack_sets(sets["originals"], pathlib.Path(folder)), args.pair_clips, args.rounds
        )
        rates = measure_rates(sets, args) if args.round_clips else {}
        loader = Loader(workers=args.workers, threads=args.threads)
        memory = (
            measure_memory(sets["small"], args.memory_clips, loader) if args.memory_clips else {}
        )
    command = shlex.join(["python", *sys.argv])
    print(tabulate(rates, pairs, memory, command))
    if args.json:
        numbers = {"command": command, "cores": os.cpu_count(), "rates": rates, "memory_mb": memory}
        numbers |= {"ratios": compute_ratios(rates), "pairs": pairs}
        args.json.write_text(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
