#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg's libavutil 60), NumPy 2.3.5, Python 3.11
#
# A decoded frame is freed when the last reference to it goes. One would guess that reading
# `frame.side_data` changes nothing about that. The container that it returns refers to the frame,
# and the frame keeps the container, so that every frame whose side data were read stays, with its
# pixels, until Python's garbage collection finds the cycle. Few Python objects are made between two
# frames, so it comes late: a process that reads the orientation of frames grows by their pixels.
#
# Output:
#   frames alive after decoding 100, side data not read: 0
#   frames alive after decoding 100, side data read: 100
#   after a garbage collection: 0
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.3.5

cat > "$folder/try.py" <<'PYTHON'
import gc
import io

import av
import numpy as np

file = io.BytesIO()
with av.open(file, "w", format="mp4") as output:
    stream = output.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 64
    for number in range(100):
        pixels = np.full((64, 64, 3), number, np.uint8)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    output.mux(stream.encode(None))


def frames_alive(read):
    gc.collect()
    gc.disable()  # as between two collections
    file.seek(0)
    with av.open(file) as video:
        for frame in video.decode(video=0):
            if read:
                frame.side_data.get("DISPLAYMATRIX")
    del frame
    alive = sum(isinstance(x, av.VideoFrame) for x in gc.get_objects())
    gc.enable()
    return alive


print("frames alive after decoding 100, side data not read:", frames_alive(False))
print("frames alive after decoding 100, side data read:", frames_alive(True))
gc.collect()
print("after a garbage collection:", sum(isinstance(x, av.VideoFrame) for x in gc.get_objects()))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" | tee "$folder/out"
grep -qx "frames alive after decoding 100, side data not read: 0" "$folder/out"
grep -qx "frames alive after decoding 100, side data read: 100" "$folder/out"
grep -qx "after a garbage collection: 0" "$folder/out"
