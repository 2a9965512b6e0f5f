"""Transcoding to small H.264 files that are fast to read clips from.

Nothing here imports JAX.
"""

import io
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vrl_jax.data.datasets.indexed import Row
from vrl_jax.data.video.video_decoder import convert_frame, open_video
from vrl_jax.data.video_dataset import VideoError

# "fastdecode" disables features that are slow to decode: a third less time for a tenth more bytes.
# "cpu-independent" encodes the same bytes with any instruction set, without loss of speed.
CODEC = {
    "g": "16",
    "bf": "0",
    "crf": "20",
    "tune": "fastdecode",
    "x264-params": "cpu-independent=1",
}
FPS = 25.0  # of files without a frame rate


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return even (height, width) with the given short side and the same aspect; never enlarges."""
    factor = min(1.0, short_side / min(height, width)) / 2
    return max(2, 2 * round(height * factor)), max(2, 2 * round(width * factor))


def transcode_video(row: Row, short_side: int) -> bytes:
    """Return a video as an mp4 file: H.264, upright, a keyframe every 16 frames, no sound.

    Frames are encoded from the RGB values that readers return, which preserves their colors.

    Raises:
      VideoError: the video has fewer frames than in the manifest.
    """
    size = scaled_size(row.height, row.width, short_side)
    rate = Fraction(row.fps or FPS).limit_denominator(10000)
    reformatter, number, file = VideoReformatter(), -1, io.BytesIO()
    old, streams = open_video(row.path)
    with old, av.open(file, "w", format="mp4") as new:
        stream = new.add_stream("libx264", rate=rate, options=CODEC)
        stream.codec_context.thread_count = 1  # with more, the bytes depend on the machine
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number, frame in enumerate(islice(old.decode(streams[0]), row.frames)):
            pixels = np.ascontiguousarray(convert_frame(frame, size, reformatter))
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            image.pts, image.time_base = number, 1 / rate
            new.mux(stream.encode(image))
        if number + 1 < row.frames:
            raise VideoError(f"only {number + 1} of {row.frames} frames can be decoded")
        new.mux(stream.encode())
    return file.getvalue()
