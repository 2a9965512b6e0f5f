"""Data sets in shards: WebDataset tars, TensorFlow Datasets, DMVR's TFRecords.

Nothing here imports JAX, and only `Tfds` imports TensorFlow. Shards are a folder, or a path in
which `{000000..000123}` counts or whose final `@64` is `-00000-of-00064` etc. Tars and TFRecords
may be on object stores, where samples are read by byte range and listing takes one or two requests
per sample.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.file_lists import (
    EXTENSIONS,
    Listed,
    list_shards,
    list_tfds_shards,
    list_tfds_splits,
    name_shards,
    read_classes,
    require_file,
    require_folder,
    underscores_to_spaces,
)
from vrl_jax.data.remote_paths import AnyPath, to_text
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.media_containers import (
    ArrayRecord,
    ByteRange,
    Stored,
    StoredExample,
    StoredSequence,
    StoredVideo,
    open_array_record,
    require_local,
)
from vrl_jax.data.video_dataset import Video, VideoHandle, VideoList

THREADS = 8  # shards read in parallel
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
Row = tuple[str, VideoHandle, int]  # id, media, stored label
Located = tuple[str, Stored]  # id, location of the record


@dataclass(frozen=True)
class WebDataset(Listed):
    """Tars in which the members `key.mp4` and `key.cls` (or `key.json`) make up a sample.

    A key is the path up to the first dot of the file name, and no two videos may have the same. The
    label is the integer in `key.cls`, or `label` or `cls` in `key.json`. Listing the samples reads
    headers and labels only.

    Attributes:
      train_shards: uncompressed tars of the training videos: a folder or a pattern.
      test_shards: the same for the test videos.
      classes: file of lines `name` or `number name`; without it the class names are the numbers.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    train_shards: str = ""
    test_shards: str = ""
    classes: str = ""
    mirror_safe: bool = True

    def list_videos(self, part: str) -> VideoList:
        """Return the samples of the shards."""

        def read(key: str, shards: str) -> list[Row]:
            return _index_all(index_tar, list_shards(key, shards, r".+\.tar"))

        rows = self._both(part, "shards", read)
        names, first = _class_names(self.classes, chain(*rows.values()))
        return _make_list(rows[part], names, first, self.mirror_safe)


@dataclass(frozen=True, kw_only=True)
class _TfdsRecords(Listed):
    """Base of data sets prepared by TensorFlow Datasets, whose labels are inside the records.

    Attributes:
      train_split: split to train on.
      test_split: split to test on.
      video: feature with the video.
      label: feature with the class number.
      fps: frame rate of image sequences, which do not store it; 0: unknown.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    train_split: str = "train"
    test_split: str = "test"
    video: str = "video"
    label: str = "label"
    fps: float = 0.0
    mirror_safe: bool = True

    def __post_init__(self) -> None:
        """Refuse negative rates."""
        check.at_least(0, fps=self.fps)

    def list_records(
        self,
        part: str,
        folder: AnyPath,
        splits: Iterable[str],
        locate: Callable[[str], list[Located]],
    ) -> VideoList:
        """Return the videos of a part.

        Args:
          part: "train" or "test".
          folder: folder of the prepared version; it contains the class names, if they have any.
          splits: splits of the data set; classes without names are counted over all of them.
          locate: returns ids and locations of the records of a split.

        Raises:
          ValueError: a record has no video or no label, or its class is not among the classes.
        """
        split = getattr(self, f"{part}_split")
        rows = labelled = self._read_rows(folder, split, locate)
        file = folder / f"{self._label_name()}.labels.txt"
        if not file.is_file():
            others = [self._read_rows(folder, other, locate) for other in splits if other != split]
            labelled = list(chain(rows, *others))
        names, first = _class_names(str(file) if file.is_file() else "", labelled)
        return _make_list(rows, names, first, self.mirror_safe)

    def _label_name(self) -> str:
        """Return the label's feature as the library spells it in names of files."""
        return self.label.replace("/", "-")

    def _read_rows(
        self, folder: AnyPath, split: str, locate: Callable[[str], list[Located]]
    ) -> list[Row]:
        located = locate(split)
        labels = self._read_labels(folder, split, located)
        return [
            (name, StoredExample(name, stored, self.video, self.fps), label)
            for (name, stored), label in zip(located, labels, strict=True)
        ]

    def _read_labels(self, folder: AnyPath, split: str, located: list[Located]) -> list[int]:
        """Return the labels of the records, from the cache if it belongs to these shards."""
        cache = folder / f"{split}-{self._label_name()}.vrl_jax.json"
        shards = map(remote_paths.to_path, {stored.path: None for _, stored in located})
        sizes = {path.name: remote_paths.file_size(path) for path in shards}
        if cache.is_file():
            saved = json.loads(cache.read_text(encoding="utf-8"))
            if saved["sizes"] == sizes:
                return saved["labels"]
        with ThreadPoolExecutor(THREADS) as pool:
            labels = list(pool.map(lambda row: self._read_label(folder, *row), located))
        partial = cache.with_suffix(f".{os.getpid()}")  # other hosts may write the same file
        try:
            partial.write_text(json.dumps({"sizes": sizes, "labels": labels}), encoding="utf-8")
            partial.replace(cache)
        except OSError:
            pass  # the folder is read-only: all records are read each time
        return labels

    def _read_label(self, folder: AnyPath, name: str, stored: Stored) -> int:
        try:
            features = tfrecord.parse_example(stored.read())
        except (DecodeError, OSError, ValueError, IndexError) as error:
            raise ValueError(f"{name} in {folder}: not a tf.train.Example: {error}") from error
        if self.video not in features:
            raise ValueError(
                f"{name} in {folder} has no feature {self.video!r}, but {sorted(features)}: "
                "pass --config.data.video="
            )
        return _single_value(f"{name} in {folder}", self.label, features)


@dataclass(frozen=True)
class TfdsFolder(_TfdsRecords):
    """A data set prepared by TensorFlow Datasets, in ArrayRecord or TFRecord files.

    Its videos are sequences of JPEG or PNG images, as in `ucf101`, or the bytes of video files.
    Labels are inside the records, so the first use reads all records. It caches the labels in a
    file in the same folder, if that is writable. TensorFlow Datasets need not be installed.

    Attributes:
      root: folder of the prepared version, such as `ucf101/ucf101_1_256/2.0.0`.
    """

    root: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the records of the split."""
        root = require_folder("root", self.root)

        def locate(split: str) -> list[Located]:
            return list(chain(*map(locate_records, list_tfds_shards(root, split))))

        return self.list_records(part, root, list_tfds_splits(root), locate)


@dataclass(frozen=True)
class Tfds(_TfdsRecords):
    """A data set of TensorFlow Datasets, which must be installed, by name.

    The data set must be prepared; nothing is downloaded. The library, which is imported where the
    videos are listed, finds the files, the parts of splits and the class names. Loader workers read
    the records without it, because it imports TensorFlow: seconds and most of a gigabyte.

    Videos, labels and ids are those of `TfdsFolder`: a run may change from one to the other. A
    split may be a part of one, such as `train[:80%]`.

    Attributes:
      name: name of the data set, with config and version where there are several, such as
        `ucf101/ucf101_1_256:2.0.0`.
      data_dir: folder in which it was prepared; "": the library's default.
    """

    name: str = ""
    data_dir: str = ""

    def list_videos(self, part: str) -> VideoList:
        """Return the records of the split."""
        info = self._find_builder().info
        folder = remote_paths.to_path(info.data_dir)

        def locate(split: str) -> list[Located]:
            try:
                files = info.splits[split].file_instructions
            except ValueError as error:
                raise ValueError(
                    f"{folder} has no split {split!r}, but {sorted(info.splits)}: "
                    f"pass --config.data.{part}_split="
                ) from error
            paths = [remote_paths.to_path(file.filename) for file in files]
            if missing := sum(not remote_paths.is_file(path) for path in paths):
                raise ValueError(f"{missing} of {len(paths)} shards of {split} are not in {folder}")
            return [
                located
                for path, file in zip(paths, files, strict=True)
                for located in locate_records(path)[file.skip : file.skip + file.take]
            ]

        return self.list_records(part, folder, info.splits, locate)

    def _find_builder(self) -> Any:
        """Return the library's builder for reading the prepared data set.

        `tfds.builder` would return one for a data set that is not prepared as well.
        """
        folder = str(remote_paths.to_path(self.data_dir)) if self.data_dir else None
        try:
            from tensorflow_datasets.core.read_only_builder import builder_from_files

            return builder_from_files(self.name, data_dir=folder)
        except ImportError as error:
            raise ValueError(
                "Tfds needs TensorFlow Datasets and TensorFlow: pip install 'vrl-jax[tfds]', or "
                f"use TfdsFolder, which needs neither ({error})"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"no data set {self.name!r} is prepared in {folder or 'the default folder'}: pass "
                "--config.data.name=<name>/<config>:<version> and --config.data.data_dir=/path"
            ) from error


@dataclass(frozen=True)
class SequenceExamples(Listed):
    """TFRecords of SequenceExamples, one JPEG per frame, the format of DMVR, scenic and BraVe.

    The class is `clip/label/text` or, if that is not stored, `clip/label/index`. DMVR's example
    generator numbers classes differently in each run, so a file gives their order.

    Attributes:
      train_shards: TFRecords of the training videos: a folder or a pattern.
      test_shards: the same for the test videos.
      classes: file of lines `name` or `number name`.
      fps: frame rate, which the records do not store (DMVR writes 10 by default); 0: unknown.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    train_shards: str = ""
    test_shards: str = ""
    classes: str = ""
    fps: float = 0.0
    mirror_safe: bool = True

    def __post_init__(self) -> None:
        """Refuse negative rates."""
        check.at_least(0, fps=self.fps)

    def list_videos(self, part: str) -> VideoList:
        """Return the records of the shards."""
        pattern = r".+-\d{5}-of-\d{5}|.+\.tfrecords?"
        key = f"{part}_shards"
        shards = list_shards(key, getattr(self, key), pattern)
        names, first = read_classes(require_file("classes", self.classes))
        numbers = {underscores_to_spaces(name): number for number, name in enumerate(names, first)}

        def index(path: AnyPath, shard: str) -> list[Row]:
            rows = []
            for i, (offset, size) in enumerate(tfrecord.index_tfrecords(path)):
                name, stored = f"{shard}/{i}", ByteRange(str(path), offset, size)
                label = self._label(f"{path}, record {i}", stored, numbers)
                rows.append((name, StoredSequence(name, stored, "image/encoded", self.fps), label))
            return rows

        return _make_list(_index_all(index, shards), names, first, self.mirror_safe)

    def _label(self, name: str, stored: ByteRange, numbers: dict[str, int]) -> int:
        try:
            context = tfrecord.read_context(stored.path, stored.offset, stored.size)
        except DecodeError as error:
            raise ValueError(f"{name}: not a tf.train.SequenceExample: {error}") from error
        if "clip/label/text" not in context:
            return _single_value(name, "clip/label/index", context)
        text = _single_value(name, "clip/label/text", context, bytes).decode(errors="replace")
        text = underscores_to_spaces(text)
        if text not in numbers:
            raise ValueError(f"{name}: {self.classes} has no class {text!r}")
        return numbers[text]


def index_tar(path: AnyPath, shard: str) -> list[Row]:
    """Return the samples of an uncompressed tar, reading only headers and labels.

    Args:
      path: the tar.
      shard: its name in ids.

    Raises:
      ValueError: the tar is compressed, damaged or truncated, a sample has no video or no label, or
        two members give the same.
    """
    videos, labels, members, key = {}, {}, {}, "no member"

    def claim(part: str) -> None:
        if (key, part) in members:
            raise ValueError(
                f"the members {members[key, part]} and {member.name} have the same key, the path "
                "up to the first dot of the file name: rename one of them"
            )
        members[key, part] = member.name

    try:
        with remote_paths.open_sparse(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, name = os.path.split(member.name)
                stem, _, kind = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key, kind = os.path.join(folder, stem), kind.rpartition(".")[2].lower()
                if f".{kind}" in EXTENSIONS:
                    claim("video")
                    videos[key] = ByteRange(str(path), member.offset_data, member.size)
                elif kind == "cls":
                    claim("class")
                    text = tar.extractfile(member).read().decode("utf-8-sig", "replace").strip()
                    if not text.lstrip("-").isdecimal():
                        raise ValueError(f"{member.name} must be an integer, got {text!r:.99}")
                    labels[key] = int(text)
                elif kind == "json":
                    about = json.load(tar.extractfile(member))
                    if not isinstance(about, dict):
                        raise ValueError(f"{member.name} must be an object, got {about!r:.99}")
                    label = about.get("label", about.get("cls"))
                    if label is not None:
                        claim("label")
                        labels.setdefault(key, label)
                videos.setdefault(key, None)
    except (tarfile.TarError, ValueError) as error:
        if compression := _find_compression(path):
            raise ValueError(
                f"{path} is compressed by {compression}: unpack it, or pack a plain .tar"
            ) from error
        raise ValueError(f"{path}, at {to_text(key)}: {error}") from error
    for key, stored in videos.items():
        if not stored or type(labels.get(key)) is not int:
            missing = "label (an integer in .cls or .json)" if stored else "video"
            label = f", got {labels[key]!r}" if stored and key in labels else ""
            raise ValueError(f"{path}: sample {to_text(key)} has no {missing}{label}")
    names = {key: to_text(f"{shard}/{key}") for key in videos}
    return [(names[key], StoredVideo(names[key], videos[key]), labels[key]) for key in videos]


def _find_compression(path: AnyPath) -> str:
    """Return the compression of a file by its first bytes; "" for none."""
    with remote_paths.open_sparse(path) as file:
        head = file.read(6)
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def _index_all(index: Callable[[AnyPath, str], list[Row]], paths: Sequence[AnyPath]) -> list[Row]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(chain(*pool.map(index, paths, name_shards(paths))))


def locate_records(path: AnyPath) -> list[Located]:
    """Return id and location of each record of a TFDS shard.

    Raises:
      ValueError: the shard is damaged, or it is an ArrayRecord file on an object store.
    """
    if ".array_record-" in path.name:
        require_local(path.parent)
        try:
            count = len(open_array_record(str(path)))
        except Exception as error:  # the reader raises various errors from C++
            raise ValueError(f"{path} cannot be read: {error}") from error
        stored = [ArrayRecord(str(path), number) for number in range(count)]
    else:
        stored = [ByteRange(str(path), *span) for span in tfrecord.index_tfrecords(path)]
    return [(f"{path.name}/{number}", each) for number, each in enumerate(stored)]


def _single_value(name: str, feature: str, features: dict, kind: type = int) -> int | bytes:
    values = features.get(feature, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"{name}: {feature} must be one {kind.__name__}, got {values!r:.99}")
    return values[0]


def _class_names(classes: str, rows: Iterable[Row]) -> tuple[tuple[str, ...], int]:
    """Return the class names, the numbers if there is no file, and the first class number."""
    if classes:
        return read_classes(require_file("classes", classes))
    return tuple(map(str, range(1 + max((label for _, _, label in rows), default=0)))), 0


def _make_list(
    rows: Sequence[Row], names: tuple[str, ...], first: int, mirror_safe: bool
) -> VideoList:
    if not rows:
        raise ValueError("the shards contain no sample")
    videos = []
    for name, media, label in rows:
        if not 0 <= label - first < len(names):
            last = max(first, first + len(names) - 1)
            raise ValueError(
                f"{media.path}: the class of {name} must be {first} to {last}, got {label}"
            )
        videos.append(Video(name, media, {"class": label - first}))
    return VideoList(tuple(videos), {"class": names}, mirror_safe)
