"""Data sets that TensorFlow Datasets has prepared, by name, config and version.

Nothing here imports JAX. The library is imported where a data set is listed. It finds the files,
the parts of splits and the class names; loader workers read the records without it, because it
imports TensorFlow, which takes each process seconds and most of a gigabyte.
"""

from dataclasses import dataclass
from typing import Any

from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.record_shards import Located, TfdsRecords, locate_records
from vrl_jax.data.video_dataset import VideoList


@dataclass(frozen=True)
class Tfds(TfdsRecords):
    """A data set of TensorFlow Datasets, which must be installed, by name.

    The data set must be prepared; nothing is downloaded. Videos and labels are those of
    `TfdsFolder`, and so are the ids: a run may change from one to the other.

    Attributes:
      name: name of the data set, with config and version where there are several, such as
        `ucf101/ucf101_1_256:2.0.0`.
      data_dir: folder in which it was prepared; "": the library's default.
      train_split: split to train on, or a part of one, such as `train[:80%]`.
      test_split: split to test on, or a part of one.
      video: feature with the video.
      label: feature with the class number.
      fps: frame rate of image sequences, which do not store it; 0: unknown.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    name: str = ""
    data_dir: str = ""
    train_split: str = "train"
    test_split: str = "test"
    video: str = "video"
    label: str = "label"
    fps: float = 0.0
    mirror_safe: bool = True

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
