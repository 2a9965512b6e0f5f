#!/usr/bin/env bash
# tensorflow-datasets 4.9.10, Python 3.11, without TensorFlow
#
# "TensorFlow is no longer a dependency to read datasets" holds for `Sequence(Image)`, not for
# `Video`, though both store the same records: the constructor of `Video` calls TensorFlow, and reading
# a prepared data set constructs its features. So `tfds.data_source("ucf101")` needs TensorFlow even
# for ArrayRecord files.
#
# `tfds.decode.SkipDecoding` is documented for images and videos. `tfds.load` applies it to both, the
# NumPy reader behind `tfds.data_source` to single images only.
#
# Output:
#   Sequence(Image): 2 frames of (16, 20, 3)
#   Image, not decoded: bytes
#   Sequence(Image), not decoded: 'SkipDecoding' object has no attribute 'decode_batch_example_np'
#   Video: No module named 'tensorflow'
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 etils==1.15.0 \
  array-record==0.8.6 pillow==13.0.0

cat > "$folder/try.py" <<'PYTHON'
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

file = io.BytesIO()
Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(file, "PNG")


def read(feature, images, **decoders):
    example = tf_example_pb2.Example()
    example.features.feature["x"].bytes_list.value.extend([file.getvalue()] * images)
    features = tfds.features.FeaturesDict({"x": feature})
    return features.deserialize_example_np(example.SerializeToString(), decoders=decoders)["x"]


image = tfds.features.Image(shape=(16, 20, 3))
sequence = tfds.features.Sequence(image)
frames = read(sequence, 2)
print(f"Sequence(Image): {len(frames)} frames of {frames[0].shape}")
print(f"Image, not decoded: {type(read(image, 1, x=tfds.decode.SkipDecoding())).__name__}")
try:
    read(sequence, 2, x=tfds.decode.SkipDecoding())
except AttributeError as error:
    print(f"Sequence(Image), not decoded: {error}")
try:
    tfds.features.Video(shape=(None, 16, 20, 3))
except ModuleNotFoundError as error:
    print(f"Video: {error}")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" > "$folder/out" || { cat "$folder/log"; exit 1; }
grep -v '^[*]\|^$\|^Failed to import' "$folder/out"  # without the library's banner
grep -q "^Sequence(Image): 2 frames of (16, 20, 3)$" "$folder/out"
grep -q "^Image, not decoded: bytes$" "$folder/out"
grep -q "^Sequence(Image), not decoded: .*'decode_batch_example_np'$" "$folder/out"
grep -q "^Video: No module named 'tensorflow'$" "$folder/out"
