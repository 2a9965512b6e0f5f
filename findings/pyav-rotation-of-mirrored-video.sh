#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg's libavformat 62), Python 3.11
#
# Front cameras write videos whose display matrix mirrors. `frame.rotation` is documented as the
# rotation of the display matrix in degrees, and a matrix that only mirrors does not rotate. It is 0
# for a vertical mirror and -180 for a horizontal one, so that turning frames by it is wrong for both,
# and shows the second upside down. The matrix itself is in `frame.side_data`: a negative determinant
# mirrors.
#
# Output:
#   upright 0, mirrored left to right -180, mirrored top to bottom 0
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy

cat > "$folder/try.py" <<'PYTHON'
import io
import struct

import av
import numpy as np

file = io.BytesIO()
with av.open(file, "w", format="mp4") as out:
    stream = out.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(3):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def rotation(a, d):
    """Return the rotation of the first frame with the display matrix diag(a, d)."""
    data = bytearray(file.getvalue())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track header, 16.16 and 2.30 fixed point
    data[at : at + 36] = struct.pack(
        ">9i", a << 16, 0, 0, 0, d << 16, 0, 64 << 16 if a < 0 else 0, 48 << 16 if d < 0 else 0, 1 << 30
    )
    with av.open(io.BytesIO(bytes(data))) as video:
        return round(next(video.decode(video=0)).rotation)


print(
    f"upright {rotation(1, 1)}, mirrored left to right {rotation(-1, 1)},",
    f"mirrored top to bottom {rotation(1, -1)}",
)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" | tee "$folder/out"
grep -qx "upright 0, mirrored left to right -180, mirrored top to bottom 0" "$folder/out"
