"""Shards by folder or pattern.

Nothing here imports JAX.
"""

import os
import re
from collections.abc import Sequence

from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.folder_contents import FolderCache
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video_dataset import MissingPart


def list_shards(key: str, shards: str, pattern: str) -> list[AnyPath]:
    """Return the shards of a config's field `key`, sorted.

    Args:
      key: name of the field, for errors.
      shards: a folder, or a path as `expand_pattern` takes it.
      pattern: regular expression of the file names in the folder.

    Raises:
      MissingPart: the field is not set.
      ValueError: there are none, or any is missing.
    """
    folder = remote_paths.to_path(shards)
    if shards and remote_paths.is_folder(folder):
        names = remote_paths.list_entries(folder)[0]
        paths = [folder / name for name in names if re.fullmatch(pattern, name)]
        packed = [
            name for name in names if re.fullmatch(rf"({pattern})\.(gz|bz2|xz|zst|lz4)", name)
        ]
        packed += [name for name in names if name.endswith(".tgz")]
        if packed := [name for name in packed if os.path.splitext(name)[0] not in names]:
            raise ValueError(
                f"{key}: {len(packed)} shards in {shards} are compressed, such as {packed[0]}: "
                "unpack them, or pack plain .tar files"
            )
    else:
        paths = [remote_paths.to_path(path) for path in expand_pattern(shards) if path]
    if not paths:
        raise (ValueError if shards else MissingPart)(
            f"{key} must be a folder of shards or a pattern, got {shards!r}: pass "
            f"--config.data.{key}=/path/to/name-{{000000..000123}}.tar"
        )
    folders = FolderCache()
    if missing := [str(path) for path in paths if not folders.has_file(str(path))]:
        raise ValueError(
            f"{len(missing)} of {len(paths)} shards of {key} are missing: {', '.join(missing[:3])}"
        )
    return paths


def check_complete(paths: list[AnyPath]) -> list[AnyPath]:
    """Return the paths; raises `ValueError` if there are fewer than `-00000-of-00064` says."""
    counts = {match[1] for path in paths if (match := re.search(r"-of-(\d{5})\b", path.name))}
    if counts and len(paths) < int(max(counts)):
        missing = int(max(counts)) - len(paths)
        raise ValueError(
            f"{missing} of {int(max(counts))} shards like {paths[0].name} are not in "
            f"{paths[0].parent}"
        )
    return paths


def name_shards(paths: Sequence[AnyPath]) -> list[str]:
    """Return distinct names of shards: of their files or, where these repeat, from the folders."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    texts = [str(path) for path in paths]
    start = os.path.commonprefix(texts).rfind("/") + 1
    return [text[start:] for text in texts]


def expand_pattern(pattern: str) -> list[str]:
    """Return the paths of a pattern in which `{000..123}` counts, or that ends in `@64`."""
    if match := re.fullmatch(r"(.+)@(\d+)", pattern):
        count = int(match[2])
        return [f"{match[1]}-{number:05}-of-{count:05}" for number in range(count)]
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    numbers = range(int(match[1]), int(match[2]) + 1)
    before, after, width = (
        pattern[: match.start()],
        expand_pattern(pattern[match.end() :]),
        len(match[1]),
    )
    return [f"{before}{number:0{width}}{end}" for number in numbers for end in after]


def list_tfds_splits(root: AnyPath) -> list[str]:
    """Return the splits with shards in a folder, sorted."""
    pattern = re.compile(r".+-(\w+)\.(?:array_record|tfrecord)-\d{5}-of-\d{5}")
    return sorted({match[1] for path in root.iterdir() if (match := pattern.fullmatch(path.name))})


def list_tfds_shards(root: AnyPath, split: str) -> list[AnyPath]:
    """Return the shards of a split in order; raises `ValueError` if any is missing."""
    paths = []
    for kind in ("array_record", "tfrecord"):
        pattern = re.compile(rf".+-{re.escape(split)}\.{kind}-\d{{5}}-of-(\d{{5}})")
        paths = sorted(path for path in root.iterdir() if pattern.fullmatch(path.name))
        count = int(paths[0].name[-5:]) if paths else 0
        if len(paths) < count:
            raise ValueError(f"{count - len(paths)} of {count} shards of {split} are not in {root}")
        if paths:
            break
    return paths
