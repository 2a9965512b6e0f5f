#!/usr/bin/env bash
# PyAV 18.1.0 (libx264 165), Python 3.11, x86-64
#
# One thread, constant quality, the same frames: one would guess the same bytes on every machine.
# x264's decisions depend on the instruction set that it finds, since some of its assembly rounds
# otherwise: with plain C (`asm=0`) some videos become other bytes than with the machine's own
# instructions, so that two hosts write different shards of the same data set.
# `cpu-independent=1`, which is not among the presets, encodes the same bytes with any.
#
# Output (the first number depends on the processor, above 0):
#   12 videos: 3 differ with asm=0, 0 differ with cpu-independent=1
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


def encode(seed, params):
    """Return the packets of a small video of drifting waves and noise, after the first packet.

    The first holds x264's note of its options.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96] / 96 * 2 * np.pi
    waves = rng.uniform(1, 12, (6, 2)), rng.uniform(-0.6, 0.6, 6), rng.uniform(0, 6, 6)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "20", "x264-params": params}
        for time in range(24):
            image = sum(np.sin(a * x + b * y + v * time + p) for (a, b), v, p in zip(*waves))
            image = np.clip(128 + 20 * image + rng.normal(0, 3, image.shape), 0, 255)
            image = np.repeat(image.astype(np.uint8)[..., None], 3, axis=-1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode())
    file.seek(0)
    with av.open(file) as video:
        return [bytes(packet) for packet in video.demux(video=0) if packet.size][1:]


def differing(params):
    """Count the videos that become other bytes without assembly."""
    return sum(encode(seed, params) != encode(seed, f"{params}:asm=0") for seed in range(12))


print(
    f"12 videos: {differing('threads=1')} differ with asm=0,",
    f"{differing('threads=1:cpu-independent=1')} differ with cpu-independent=1",
)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" | tee "$folder/out"
grep -qE "^12 videos: [1-9][0-9]* differ with asm=0, 0 differ with cpu-independent=1$" "$folder/out"
