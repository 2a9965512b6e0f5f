"""Data sets prepared by TensorFlow Datasets.

Nothing here imports JAX, and only `Tfds` imports TensorFlow. TFRecords may be on object stores.
"""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError

from vrl_jax import check
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import Label
from vrl_jax.data.datasets.file_lists import Listed, part_error, require_folder
from vrl_jax.data.datasets.record_rows import (
    THREADS,
    Row,
    make_list,
    number_rows,
    read_single_value,
)
from vrl_jax.data.datasets.shard_paths import list_tfds_shards, list_tfds_splits
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.media_containers import (
    ArrayRecord,
    ByteRange,
    Stored,
    StoredExample,
    open_array_record,
    require_local,
)
from vrl_jax.data.video_dataset import VideoList

Located = tuple[str, Stored]  # id, location of the record


@dataclass(frozen=True, kw_only=True)
class _TfdsRecords(Listed):
    """Base of data sets prepared by TensorFlow Datasets, whose labels are inside the records.

    Attributes:
      train_split: split to train on.
      test_split: split to test on.
      video: feature with the video.
      label: feature with the class number, or with the name of the class; records without `label`
        have none.
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
          ValueError: a record has no video, not all have a label, or one is not among the classes.
        """
        split = getattr(self, f"{part}_split")
        rows = labelled = self._read_rows(folder, split, locate)
        file = folder / f"{self._label_name()}.labels.txt"
        if not file.is_file():
            others = [self._read_rows(folder, other, locate) for other in splits if other != split]
            labelled = list(chain(rows, *others))
        classes = number_rows(labelled, str(file) if file.is_file() else "")
        return make_list(rows, classes, self.mirror_safe)

    def _label_name(self) -> str:
        """Return the label's feature as the library spells it in names of files."""
        return self.label.replace("/", "-")

    def _read_rows(
        self, folder: AnyPath, split: str, locate: Callable[[str], list[Located]]
    ) -> list[Row]:
        located = locate(split)
        labels = self._read_labels(folder, split, located)
        return [
            Row(name, StoredExample(name, stored, self.video, self.fps), label)
            for (name, stored), label in zip(located, labels, strict=True)
        ]

    def _read_labels(self, folder: AnyPath, split: str, located: list[Located]) -> list[Label]:
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

    def _read_label(self, folder: AnyPath, name: str, stored: Stored) -> Label:
        try:
            features = tfrecord.parse_example(stored.read())
        except (DecodeError, OSError, ValueError, IndexError) as error:
            raise ValueError(f"{name} in {folder}: not a tf.train.Example: {error}") from error
        if self.video not in features:
            raise ValueError(
                f"{name} in {folder} has no feature {self.video!r}, but {sorted(features)}: "
                "pass --config.data.video="
            )
        if self.label == _TfdsRecords.label and self.label not in features:
            return None
        label = read_single_value(f"{name} in {folder}", self.label, features, int, bytes)
        return label.decode(errors="replace") if isinstance(label, bytes) else label


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

        splits, split = list_tfds_splits(root), getattr(self, f"{part}_split")
        if split not in splits:
            raise part_error(self, f"{part}_split")(
                f"no shards of {split} in {root}, but of {', '.join(splits) or 'none'}: expected "
                f"files like name-{split}.tfrecord-00000-of-00001"
            )
        return self.list_records(part, root, splits, locate)


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
                raise part_error(self, f"{part}_split")(
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
