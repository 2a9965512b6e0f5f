"""WebDataset tars.

Nothing here imports JAX. Tars may be on object stores, where samples are read by byte range and
listing takes one or two requests per sample.
"""

import json
import os
import tarfile
from dataclasses import dataclass
from itertools import chain

from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import parse_label, warn_once
from vrl_jax.data.datasets.file_lists import Listed
from vrl_jax.data.datasets.folder_contents import EXTENSIONS
from vrl_jax.data.datasets.record_rows import Row, index_shards, make_list, number_rows
from vrl_jax.data.datasets.shard_paths import list_shards
from vrl_jax.data.remote_paths import AnyPath, to_text
from vrl_jax.data.video.media_containers import ByteRange, StoredVideo
from vrl_jax.data.video_dataset import VideoList

END_BYTES = 10_752  # zeros at the end of a tar: a record, after an incomplete one
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class WebDataset(Listed):
    """Tars in which the members `key.mp4` and `key.cls` (or `key.json`) make up a sample.

    A key is the path up to the first dot of the file name, and no two videos may have the same. The
    label is the class number or name in `key.cls`, or `label` or `cls` in `key.json`; -1 is none.
    Tars without labels serve for pretraining. Listing the samples reads headers and labels only.

    Attributes:
      train_shards: uncompressed tars of the training videos: a folder or a pattern.
      test_shards: the same for the test videos.
      classes: file of lines `name` or `number name`; without it named classes are in alphabetical
        order, and the names of others are their numbers.
      mirror_safe: whether labels are invariant to a horizontal flip (not if left and right matter).
    """

    train_shards: str = ""
    test_shards: str = ""
    classes: str = ""
    mirror_safe: bool = True

    def list_videos(self, part: str) -> VideoList:
        """Return the samples of the shards."""

        def read(key: str, shards: str) -> list[Row]:
            return index_shards(index_tar, list_shards(key, shards, r".+\.tar"))

        rows = self._both(part, "shards", read)
        classes = number_rows(list(chain(*rows.values())), self.classes)
        return make_list(rows[part], classes, self.mirror_safe)


def index_tar(path: AnyPath, shard: str) -> list[Row]:
    """Return the samples of an uncompressed tar, reading only headers and labels.

    Args:
      path: the tar.
      shard: its name in ids.

    Raises:
      ValueError: the tar is compressed, damaged or truncated, a sample has no video, two members
        give the same, or a member is a link.
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
                if (member.islnk() or member.issym()) and _is_read(name):
                    raise ValueError(
                        f"{member.name} is a link to {member.linkname}: pack files, for example "
                        "with tar --dereference --hard-dereference"
                    )
                if not member.isfile() or not stem:
                    continue
                key, kind = os.path.join(folder, stem), kind.rpartition(".")[2].lower()
                if member.issparse():
                    raise ValueError(f"{member.name} is sparse: pack without --sparse")
                if f".{kind}" in EXTENSIONS:
                    claim("video")
                    videos[key] = ByteRange(str(path), member.offset_data, member.size)
                elif kind == "cls":
                    claim("class")
                    data = tar.extractfile(member).read()
                    text = to_text(data.decode("utf-8-sig", "surrogateescape"))
                    labels[key] = parse_label(text)
                elif kind == "json":
                    about = json.load(tar.extractfile(member))
                    if not isinstance(about, dict):
                        raise ValueError(f"{member.name} must be an object, got {about!r:.99}")
                    label = about.get("label", about.get("cls"))
                    if label is not None:
                        claim("label")
                        if type(label) not in (int, str):
                            raise ValueError(
                                f"{member.name}: label must be an integer or a name, got {label!r}"
                            )
                        labels.setdefault(key, parse_label(str(label)))
                videos.setdefault(key, None)
            file.seek(tar.offset)
            end = file.read(END_BYTES)
            if not end:
                warn_once(f"{path} lacks the zeros at the end of a tar: it may be incomplete")
            if end.strip(b"\0"):
                raise ValueError(
                    f"byte {tar.offset} must be the end or a further member, got other data: the "
                    "tar is damaged, or joined from several"
                )
    except (tarfile.TarError, ValueError) as error:
        if compression := _find_compression(path):
            raise ValueError(
                f"{path} is compressed by {compression}: unpack it, or pack a plain .tar"
            ) from error
        raise ValueError(f"{path}, at {to_text(key)}: {error}") from error
    for key, stored in videos.items():
        if not stored:
            raise ValueError(f"{path}: sample {to_text(key)} has no video")
    names = {key: to_text(f"{shard}/{key}") for key in videos}
    return [
        Row(name, StoredVideo(name, videos[key]), labels.get(key)) for key, name in names.items()
    ]


def _is_read(name: str) -> bool:
    """Return whether a member with this file name is a video or may have a label."""
    kind = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (kind in EXTENSIONS or kind in (".cls", ".json"))


def _find_compression(path: AnyPath) -> str:
    """Return the compression of a file by its first bytes; "" for none."""
    with remote_paths.open_sparse(path) as file:
        head = file.read(6)
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
