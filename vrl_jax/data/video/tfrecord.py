"""TFRecord files and their messages, without TensorFlow.

Nothing here imports JAX. The messages are those of tensorflow/core/example/*.proto. A map is
encoded as a list of entries with a key and a value, and is declared as such here.
"""

import os
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath

# message -> fields (name, number, type, repeated)
_MESSAGES = {
    "BytesList": [("value", 1, "bytes", True)],
    "FloatList": [("value", 1, "float", True)],
    "Int64List": [("value", 1, "int64", True)],
    "Feature": [
        ("bytes_list", 1, "BytesList", False),
        ("float_list", 2, "FloatList", False),
        ("int64_list", 3, "Int64List", False),
    ],
    "FeatureEntry": [("key", 1, "string", False), ("value", 2, "Feature", False)],
    "Features": [("feature", 1, "FeatureEntry", True)],
    "FeatureList": [("feature", 1, "Feature", True)],
    "FeatureListEntry": [("key", 1, "string", False), ("value", 2, "FeatureList", False)],
    "FeatureLists": [("feature_list", 1, "FeatureListEntry", True)],
    "Example": [("features", 1, "Features", False)],
    "SequenceExample": [
        ("context", 1, "Features", False),
        ("feature_lists", 2, "FeatureLists", False),
    ],
}


def _describe() -> dict[str, Any]:
    """Return the message classes."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="vrl_jax/example.proto", package="vrl_jax")
    file.syntax = "proto3"
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".vrl_jax.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"vrl_jax.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _describe()


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """Return the features of a tf.train.Example; raises `DecodeError` if it is malformed."""
    return _features(MESSAGES["Example"].FromString(data).features)


def parse_context(data: bytes) -> dict[str, list[Any]]:
    """Return the context of a SequenceExample from a prefix that contains it."""
    return _features(MESSAGES["SequenceExample"].FromString(data).context)


def parse_sequence(data: bytes) -> dict[str, list[list[Any]]]:
    """Return the feature lists of a tf.train.SequenceExample as values per step."""
    lists = MESSAGES["SequenceExample"].FromString(data).feature_lists
    return {
        entry.key: [_values(step) for step in entry.value.feature] for entry in lists.feature_list
    }


def index_tfrecords(path: AnyPath) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each record of a TFRecord file, reading only the lengths.

    A record is its length (u64), 4 bytes of checksum, its data, and 4 bytes of checksum.

    Raises:
      ValueError: the file is truncated, compressed or not a TFRecord file.
    """
    at, number = 0, 0
    with remote_paths.open_sparse(path) as file:
        end = file.seek(0, os.SEEK_END)
        while at < end:
            file.seek(at)
            head = file.read(12)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else end
            if at + 12 + size + 4 > end:
                raise ValueError(
                    f"{path}, record {number}: must have {size} bytes, but the file ends: it is "
                    "truncated, compressed or not a TFRecord file"
                )
            yield at + 12, size
            at, number = at + 12 + size + 4, number + 1


def read_context(path: str | AnyPath, offset: int, size: int) -> dict[str, list[Any]]:
    """Return the context of a SequenceExample in a file without reading its frames.

    If the context does not come first, which is unusual, the whole record is read.
    """
    with remote_paths.open_sparse(path) as file:
        file.seek(offset)
        data = file.read(min(size, 11))
        if data[:1] == b"\x0a":  # field 1, then its length: 7 bits per byte, lowest first
            length = 0
            for at, byte in enumerate(data[1:]):
                length |= (byte & 127) << 7 * at
                if byte < 128:
                    break
            size = at + 2 + length
        data += file.read(max(0, size - len(data)))
    return parse_context(data[:size])


def _features(features: Any) -> dict[str, list[Any]]:
    return {entry.key: _values(entry.value) for entry in features.feature}


def _values(feature: Any) -> list[Any]:
    """Return the values of a feature of any kind."""
    lists = (feature.bytes_list, feature.float_list, feature.int64_list)
    return [value for each in lists for value in each.value]
