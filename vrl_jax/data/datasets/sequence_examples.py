"""TFRecords of SequenceExamples, the format of DMVR.

Nothing here imports JAX. TFRecords may be on object stores.
"""

from dataclasses import dataclass
from itertools import chain

from google.protobuf.message import DecodeError

from vrl_jax import check
from vrl_jax.data.datasets.class_names import Label
from vrl_jax.data.datasets.file_lists import Listed
from vrl_jax.data.datasets.record_rows import (
    Row,
    index_shards,
    make_list,
    number_rows,
    read_single_value,
)
from vrl_jax.data.datasets.shard_paths import list_shards
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.media_containers import ByteRange, StoredSequence
from vrl_jax.data.video_dataset import VideoList


@dataclass(frozen=True)
class SequenceExamples(Listed):
    """TFRecords of SequenceExamples, one JPEG per frame, the format of DMVR, scenic and BraVe.

    The class is `clip/label/text` or, if that is not stored, `clip/label/index`; records with
    neither have no label. DMVR's example generator numbers classes differently in each run, so that
    an index needs a file of the classes.

    Attributes:
      train_shards: TFRecords of the training videos: a folder or a pattern.
      test_shards: the same for the test videos.
      classes: file of lines `name` or `number name`; without it named classes are in alphabetical
        order.
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

        def read(key: str, shards: str) -> list[Row]:
            return index_shards(self._index, list_shards(key, shards, pattern))

        rows = self._both(part, "shards", read)
        everything = list(chain(*rows.values()))
        numbered = {row.label for row in everything if isinstance(row.label, int)} - {-1}
        if numbered and not self.classes:
            raise ValueError(
                f"the records number their classes, such as {min(numbered)}, differently in each "
                "run of their generator: pass --config.data.classes=/path/to/file"
            )
        return make_list(rows[part], number_rows(everything, self.classes), self.mirror_safe)

    def _index(self, path: AnyPath, shard: str) -> list[Row]:
        rows = []
        for number, (offset, size) in enumerate(tfrecord.index_tfrecords(path)):
            name, stored = f"{shard}/{number}", ByteRange(str(path), offset, size)
            media = StoredSequence(name, stored, "image/encoded", self.fps)
            rows.append(Row(name, media, _read_label(f"{path}, record {number}", stored)))
        return rows


def _read_label(name: str, stored: ByteRange) -> Label:
    try:
        context = tfrecord.read_context(stored.path, stored.offset, stored.size)
    except DecodeError as error:
        raise ValueError(f"{name}: not a tf.train.SequenceExample: {error}") from error
    if "clip/label/text" in context:
        text = read_single_value(name, "clip/label/text", context, bytes)
        return text.decode(errors="replace")
    if "clip/label/index" in context:
        return read_single_value(name, "clip/label/index", context, int)
    return None
