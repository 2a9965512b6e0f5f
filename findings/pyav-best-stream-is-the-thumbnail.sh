#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg's libavformat 62), Python 3.11
#
# A file may have a small preview or a thumbnail before its video. `streams.best("video")` is FFmpeg's
# own choice, by which one would guess the larger or the longer stream. What counts first is the
# disposition "default", and in MP4 FFmpeg gives it to the first track only: the best video of
# an MP4 file is its first track, even one of a single small frame. In Matroska, where neither is
# the default, the single frame loses, but a preview as long as the video wins.
#
# Output:
#   mp4: preview first: 64 pixels wide, one frame first: 64 pixels wide
#   matroska: preview first: 64 pixels wide, one frame first: 320 pixels wide
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy

cat > "$folder/try.py" <<'PYTHON'
import io

import av
import numpy as np


def best_width(container, frames):
    """Return the width of the best stream: a small one of some frames, or the video of 60."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        streams = []
        for width, height, count in ((64, 48, frames), (320, 240, 60)):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append((stream, count))
        for number in range(60):
            for stream, count in streams:
                if number < count:
                    gray = np.full((stream.height * 3 // 2, stream.width), 4 * number, np.uint8)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(gray, "yuv420p")))
        for stream, _ in streams:
            out.mux(stream.encode())
    file.seek(0)
    with av.open(file) as video:
        return video.streams.best("video").width


for container in ("mp4", "matroska"):
    widths = [best_width(container, frames) for frames in (60, 1)]
    print("{}: preview first: {} pixels wide, one frame first: {} pixels wide".format(container, *widths))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" | tee "$folder/out"
grep -qx "mp4: preview first: 64 pixels wide, one frame first: 64 pixels wide" "$folder/out"
grep -qx "matroska: preview first: 64 pixels wide, one frame first: 320 pixels wide" "$folder/out"
