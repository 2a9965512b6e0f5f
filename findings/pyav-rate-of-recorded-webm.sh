#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg's libavformat 62), Python 3.11
#
# Browsers and screen recorders write WebM and MKV without a default duration: only time stamps, in
# milliseconds. FFmpeg estimates the rate from them, and finds it where frames are evenly spaced. With
# the jitter of a recorder `average_rate` is None, and `guessed_rate`, made to be the best guess, is the
# unit of the time stamps: 1000 frames per second for a file of 30. A sampler that divides by it takes
# a clip of half a second from a few milliseconds.
#
# Output:
#   even: average_rate 30, guessed_rate 30; by the time stamps 30.0
#   jitter: average_rate None, guessed_rate 1000; by the time stamps 30.0
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy

cat > "$folder/try.py" <<'PYTHON'
import io
from fractions import Fraction

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def write(jitter):
    """Return a WebM of 90 frames at 30 per second, with some jitter in milliseconds."""
    file, rng = io.BytesIO(), np.random.default_rng(0)
    with av.open(file, "w", format="webm") as out:
        stream = out.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        for number in range(90):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
            shift = jitter * rng.integers(-8, 9) * (0 < number < 89)
            frame.pts, frame.time_base = round(number * 1000 / 30) + int(shift), MILLISECOND
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    # The element DefaultDuration (23 E3 83) becomes a Void element of the same length.
    data = bytearray(file.getvalue())
    at = data.find(b"\x23\xe3\x83")
    length = 4 + (data[at + 3] & 0x7F)
    data[at : at + length] = bytes([0xEC, 0x80 | (length - 2)]) + bytes(length - 2)
    return io.BytesIO(bytes(data))


for name, jitter in (("even", 0), ("jitter", 1)):
    with av.open(write(jitter)) as video:
        stream = video.streams.video[0]
        rates = f"average_rate {stream.average_rate}, guessed_rate {stream.guessed_rate}"
        times = [frame.time for frame in video.decode(stream)]
    mean = (len(times) - 1) / (times[-1] - times[0])
    print(f"{name}: {rates}; by the time stamps {mean:.1f}")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" | tee "$folder/out"
grep -qx "even: average_rate 30, guessed_rate 30; by the time stamps 30.0" "$folder/out"
grep -qx "jitter: average_rate None, guessed_rate 1000; by the time stamps 30.0" "$folder/out"
