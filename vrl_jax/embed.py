"""Features of videos from any checkpoint, as one file.

`python -m vrl_jax.embed runs/mine UCF101 root=/data/ucf annotations=/lists --out=test.npz` encodes
the test videos. The data may also be a folder of videos without classes, and `--out=test.parquet`
writes Parquet. The file has `id`, `features` (the mean over the clips of a video, or all clips with
`--per-clip`), the class number `label_<name>` of each label, and `unreadable`: "" or the reason why
a video could not be read or has no finite features, in which case its features are NaN. `--parts`
adds each embedding that the run's method makes, such as `part_static`. `about` has the settings as
JSON.
After any interruption, even `kill -9`, the same command resumes.
"""

import argparse
import contextlib
import hashlib
import os
import re
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import vrl_jax
from vrl_jax import atomic_files, pretrained
from vrl_jax.data import remote_paths
from vrl_jax.data.data_loader import eval_batches, failed_videos
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.datasets.file_lists import PARTS, open_handle
from vrl_jax.data.datasets.folder_contents import is_hidden, is_video_name
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.video_dataset import (
    Video,
    VideoDataset,
    VideoError,
    VideoList,
    fingerprint,
    label_array,
)
from vrl_jax.evaluation.encode_videos import (
    EncodeConfig,
    add_options,
    compile_encoder,
    compile_with_parts,
    pad_rows,
    read_encode_config,
)
from vrl_jax.evaluation.result_stamp import describe_model
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import feature_file
from vrl_jax.probes.feature_bank import split_columns
from vrl_jax.train.compilation import enable_cache

NOT_FINITE = "its features are not finite: the encoder has diverged, or a value overflows"


def write_features(
    model: Pretrained,
    source: VideoDataset,
    out: Path,
    protocol: EncodeConfig,
    *,
    part: str,
    per_clip: bool,
) -> str:
    """Write the features of all videos of a data set.

    Args:
      model: the encoder.
      source: the videos.
      out: the file, `.npz` or `.parquet`.
      protocol: how videos are encoded.
      part: name of the part of the data set, stored in the file.
      per_clip: whether to store the features of each clip instead of their mean.

    Returns:
      a summary.

    Raises:
      ConfigMismatch: `out`, or parts of it, were made with other settings.
      ValueError: `out` cannot be written.
    """
    feature_file.check_path(out)
    pooling = "mean over time and space" + (", clips apart" * per_clip or ", mean over clips")
    embeddings = {"embeddings": "features and parts"} if model.parts else {}
    about = {
        "model": {"config": repr(model.encoder), **describe_model(model)},
        "data": {"part": part, "videos": len(source), "fingerprint": fingerprint(source)},
        "protocol": protocol.describe(model, pooling) | embeddings,
        "classes": {label: list(names) for label, names in source.classes.items()},
        "software": {"vrl_jax": vrl_jax.__version__},
        "parts": {"batch": protocol.batch},
    }
    if out.exists():
        atomic_files.check_same_settings(out, feature_file.read_about(out), about, "--out")
        feature_file.FeatureParts(out, about).remove()  # left if killed just before the removal
        return f"{out} is finished (to make it again, delete it)"
    parts = feature_file.FeatureParts(out, about)
    _add_parts(model, source, parts, protocol, per_clip)
    columns = _id_columns(source) | parts.join()
    feature_file.write_columns(out, columns, about)
    parts.remove()
    return f"{out}: {len(source)} videos, {(columns['unreadable'] != '').sum()} unreadable"


def find_videos(name: str, settings: list[str], part: str) -> VideoDataset:
    """Return a part of a data set, or all videos below a folder without splits.

    Raises:
      ValueError: there is no such data set, or no video in the folder.
    """
    dataset = dataset_lookup.build_dataset(name, settings)
    if isinstance(dataset, ClassFolders) and not settings:
        root, splits = (
            remote_paths.to_path(dataset.root),
            (dataset.train_folder, dataset.test_folder),
        )
        if not any((root / split).is_dir() for split in splits):
            return _list_folder(root)
    return getattr(dataset, part)()


def _add_parts(
    model: Pretrained,
    source: VideoDataset,
    parts: feature_file.FeatureParts,
    protocol: EncodeConfig,
    per_clip: bool,
) -> None:
    """Encode the remaining videos, one part per batch."""
    batch = protocol.batch
    done = min(len(parts) * batch, len(source))
    if done == len(source):
        return
    widths = {"features": model.encoder.dim}
    if model.parts:
        side = model.augment.size
        parts_widths = model.parts.widths((1, protocol.sampling.frames, side, side, 3))
        widths |= {f"part_{name}": width for name, width in parts_widths.items()}
        encode = compile_with_parts(model)
    else:
        encode = compile_encoder(model, lambda features: features.clip)
    videos = tuple(source[number] for number in range(done, len(source)))
    batches = eval_batches(
        VideoList(videos, source.classes),
        protocol.sampling,
        protocol.resize,
        batch=batch,
        loader=protocol.loader,
    )
    progress = tqdm(desc="embed", total=len(source), initial=done, unit="video", mininterval=1)
    with contextlib.closing(batches), progress:
        for rows in batches:
            clips, count = pad_rows(rows["clips"], batch), len(rows["clips"])
            # One clip of each video at a time, so that memory does not grow with their number.
            features = np.stack([encode(clips[:, k]) for k in range(clips.shape[1])], 1)[:count]
            features = np.asarray(features if per_clip else features.mean(1), np.float32)
            reasons = np.full(count, "", object)
            for number, reason in failed_videos(rows):
                row = number - int(rows["index"][0])
                features[row], reasons[row] = np.nan, remote_paths.to_text(reason)
            for row in np.flatnonzero(~np.isfinite(features).reshape(count, -1).all(-1)):
                reasons[row] = reasons[row] or NOT_FINITE
            parts.add(**split_columns(features, widths), unreadable=reasons.astype(str))
            progress.update(count)


def _id_columns(source: VideoDataset) -> dict[str, np.ndarray]:
    """Return the columns of ids and labels."""
    videos = [source[number] for number in range(len(source))]
    labels = {f"label_{label}": label_array(source, label) for label in source.classes}
    return {"id": np.array([video.id for video in videos]), **labels}


def _list_folder(root: Path) -> VideoList:
    """Return all videos below a folder with their paths as ids, hashed with their file sizes."""
    paths, visited = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder above, or a second one to the same folder
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        paths += [
            os.path.relpath(os.path.join(folder, name), root)
            for name in names
            if is_video_name(name)
        ]
    paths = [path for path in paths if not any(map(is_hidden, Path(path).parts))]
    if not paths:
        raise ValueError(f"no video in {root}")
    sizes = [(path, (root / path).stat().st_size) for path in sorted(paths)]
    return VideoList(
        tuple(
            Video(remote_paths.to_text(path), open_handle(str(root / path)), {})
            for path, _ in sizes
        ),
        classes={},
        hash=hashlib.sha256(repr(sizes).encode()).hexdigest(),
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be HxW, got {text}")
    return int(match[1]), int(match[2])


def main(argv: list[str] | None = None) -> None:
    """Encode the remaining videos and print a summary."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl embed", description=__doc__, formatter_class=form)
    parser.add_argument("model", help="a run's folder, or what vrl_jax.pretrained.load takes")
    parser.add_argument("data", nargs="+", help="data set or folder, then its fields, key=value")
    parser.add_argument(
        "--out", type=remote_paths.local_path, required=True, help="features.npz or .parquet"
    )
    parser.add_argument(
        "--part", choices=PARTS, default="test", help="of the data set (default test)"
    )
    parser.add_argument("--clips", type=int, default=10, help="per video (default 10)")
    parser.add_argument("--per-clip", action="store_true", help="do not average over clips")
    parser.add_argument(
        "--parts", action="store_true", help="also the embeddings of the run's method"
    )
    parser.add_argument(
        "--resize", type=_size, help="frames are decoded to HxW (default: the run's)"
    )
    add_options(parser)
    args = parser.parse_intermixed_args(argv)
    enable_cache()
    try:
        feature_file.check_path(args.out)
        source = find_videos(args.data[0], args.data[1:], args.part)
        model = pretrained.load(args.model, step=args.step, parts=args.parts)
        protocol = read_encode_config(model, args, args.clips, args.resize)
        options = {"part": args.part, "per_clip": args.per_clip}
        print(write_features(model, source, args.out, protocol, **options))
    except (ValueError, VideoError, OSError) as error:
        sys.exit(f"error: {error}".replace("--config.data.", "").replace("--config.", "--"))


if __name__ == "__main__":
    main()
