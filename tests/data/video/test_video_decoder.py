import contextlib
import csv
import gc
import io
import pathlib
import pickle
import struct
from fractions import Fraction
from unittest import mock

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from vrl_jax.data.video import video_decoder
from vrl_jax.data.video.video_decoder import Excerpt, VideoBytes, VideoFile
from vrl_jax.data.video_dataset import HasTimes, VideoError

HEIGHT, WIDTH, BITS = 64, 128, 8


def draw(number, video=0):
    """Black and white columns: the bits of the frame's number, below them the video's."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row, value in enumerate((number, video)):
        for bit in range(BITS):
            if value >> bit & 1:
                image[row * 32 : row * 32 + 32, bit * 16 : bit * 16 + 16] = 255
    return image


def read_numbers(images):
    """Return (frame number, video number) of each drawn image, whatever its size."""
    h, w = images.shape[-3:-1]
    rows, columns = (h // 4, 3 * h // 4), [w * (2 * bit + 1) // (2 * BITS) for bit in range(BITS)]
    bits = images[..., 0][..., rows, :][..., columns] > 128
    return np.moveaxis(bits @ (1 << np.arange(BITS)), -1, 0)


def write_clip(path, frames=60, video=0, codec="libx264", container=None, **options):
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options={k: str(v) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(draw(number, video), format="rgb24")
            file.mux(stream.encode(image))
        file.mux(stream.encode())
    return str(path)


CLIPS = {
    "no_b.mp4": dict(g=12, bf=0),
    "b.mp4": dict(g=250, bf=3),
    "open_gop.mp4": {"g": 12, "bf": 2, "x264-params": "open-gop=1"},
    "fragmented.mp4": dict(g=12, bf=2, container={"movflags": "frag_keyframe+empty_moov"}),
    "b.mkv": dict(g=12, bf=3),
    "h265.mkv": {"codec": "libx265", "g": 12, "bf": 2, "x265-params": "log-level=none"},
    "vp8.webm": dict(codec="libvpx", g=20),
    "no_b.avi": dict(codec="mpeg4", g=12, bf=0),
    "b.avi": dict(codec="mpeg4", g=12, bf=2),
    "mpeg2.mpg": dict(codec="mpeg2video", g=12, bf=2),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_is_the_one_asked_for(tmp_path, rng, name):
    path = write_clip(tmp_path / name, **CLIPS[name])
    with VideoFile(path).open() as reader:
        assert reader.num_frames == 60 and reader.fps == pytest.approx(25)
        seeks = name.endswith((".mp4", ".mkv", ".webm"))
        assert bool(reader._cached) != seeks
        for shape in ((1, 1), (3, 5), (2, 16)):
            frames = rng.integers(0, 60, shape)
            clips = reader.read(frames, (HEIGHT, WIDTH))
            assert clips.shape == (*shape, HEIGHT, WIDTH, 3) and clips.dtype == np.uint8
            np.testing.assert_array_equal(read_numbers(clips)[0], frames)
        everything = np.arange(60)[None]
        np.testing.assert_array_equal(
            read_numbers(reader.read(everything, (32, 64)))[0], everything
        )
        assert bool(reader._cached) != seeks  # no silent fallback


class Counted(dict):
    looked_up = 0

    def __contains__(self, key):
        self.looked_up += 1
        return super().__contains__(key)


def test_only_what_is_needed_is_decoded(tmp_path):
    with VideoFile(write_clip(tmp_path / "clip.mp4", g=12, bf=0)).open() as reader:
        for frames, least, most in (([0, 50], 4, 20), (range(0, 60, 5), 56, 60), ([40] * 9, 5, 9)):
            numbers = Counted(reader._index.numbers)
            reader._index = reader._index._replace(numbers=numbers)
            reader.read(np.array([frames]), (64, 128))
            assert least <= numbers.looked_up <= most


def manifest(folder):
    with open(folder / "MANIFEST.tsv", encoding="utf-8") as file:
        return {
            row["path"]: int(row["frames"] or 0)
            for row in csv.DictReader(file, delimiter="\t")
            if not row["path"].startswith("annotations/")
        }


def decode_in_order(path, numbers):
    """Return the wanted frames, upright and at full size, as a plain decoder puts them out."""
    images = {}
    with av.open(path, **video_decoder.ANY_METADATA) as file:
        for number, frame in enumerate(file.decode(file.streams.best("video"))):
            if number in numbers:
                image = frame.to_ndarray(format="rgb24")
                images[number] = np.rot90(image, {0: 0, -90: 3, 180: 2, 90: 1}[frame.rotation])
    return images


@pytest.mark.slow
def test_real_files_decode_exactly_or_say_why_not(videos, rng):
    damaged_inside = "diverse/decord/corrupted.mp4"  # 50 frames are stored, 28 decode
    # Its stream 3 has larger frames than the first, which the manifest describes.
    two_videos = {"diverse/torchcodec/nasa_13013.mp4": 390}
    # x264's 4:4:4 cannot be entered in the middle; the other has no keyframe.
    from_start = {"-video-with-dash-.mp4", "block_ends_beyond_cluster.mkv"}
    refused = 0
    for path, num_frames in manifest(videos).items():
        media, num_frames = VideoFile(str(videos / path)), two_videos.get(path, num_frames)
        if path == damaged_inside:
            continue
        if num_frames == 0:
            with pytest.raises(VideoError, match=pathlib.Path(path).name), media.open():
                pass
            refused += 1
            continue
        frames = rng.integers(0, num_frames, (3, 3))
        images = decode_in_order(media.path, set(frames.flat))
        with media.open() as reader:
            assert reader.num_frames == num_frames, path
            stamped = path.endswith((".mp4", ".mov", ".mkv", ".webm"))
            seeks = stamped and pathlib.Path(path).name not in from_start
            for clip in frames:  # one at a time, so that seeks go back and forth
                got = reader.read(clip[None], images[clip[0]].shape[:2])[0]
                for image, number in zip(got, clip, strict=True):
                    np.testing.assert_array_equal(image, images[number], err_msg=path)
            assert bool(reader._cached) != seeks, path
    assert refused == 8


def test_damage_inside_a_file_shows_when_read(videos):
    media = VideoFile(str(videos / "diverse/decord/corrupted.mp4"))
    with media.open() as reader:
        assert reader.read(np.array([[3, 27]]), (72, 128)).std() > 10
    with (
        media.open() as reader,
        pytest.raises(VideoError, match="corrupted.mp4: no frame after 27 can be"),
    ):
        reader.read(np.array([[3, 28]]), (72, 128))


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
def test_a_file_cut_off_has_the_frames_before_the_cut(tmp_path, movflags):
    path = write_clip(tmp_path / "clip.mp4", g=250, bf=0, container={"movflags": movflags})
    data = pathlib.Path(path).read_bytes()
    with VideoBytes("cut", data[: len(data) * 2 // 3]).open() as reader:
        assert 10 < reader.num_frames < 55
        frames = np.arange(reader.num_frames)[None]
        np.testing.assert_array_equal(read_numbers(reader.read(frames, (64, 128)))[0], frames)
        with pytest.raises(VideoError, match="cut: frames must be 0 to .*, got 0 to 59"):
            reader.read(np.array([[0, 59]]), (64, 128))


def test_frames_that_are_never_shown_have_no_number(tmp_path):
    source, target = write_clip(tmp_path / "a.webm", codec="libvpx", g=20), str(tmp_path / "b.webm")
    hidden = {7, 8, 31}
    with av.open(source) as old, av.open(target, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if number in hidden:
                data[0] &= ~0x10  # VP8's show_frame bit
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    with VideoFile(target).open() as reader:
        assert reader.num_frames == 57
        clips = reader.read(np.arange(57)[None], (64, 128))
    np.testing.assert_array_equal(
        read_numbers(clips)[0, 0], [n for n in range(60) if n not in hidden]
    )


def test_scaled_to_cover_then_cut_at_the_centre(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=4)
    frames = np.array([[1, 3]])
    with VideoFile(path).open() as reader:
        full, half = reader.read(frames, (64, 128)), reader.read(frames, (32, 64))
        np.testing.assert_array_equal(reader.read(frames, (64, 32)), full[..., 48:80, :])
        np.testing.assert_array_equal(reader.read(frames, (32, 32)), half[..., 16:48, :])
        wide = reader.read(frames, (32, 128))
        np.testing.assert_array_equal(wide, full[..., 16:48, :, :])
        tall = reader.read(frames, (128, 30))
    assert tall.shape == (1, 2, 128, 30, 3)
    means = full.reshape(1, 2, 32, 2, 64, 2, 3).mean((3, 5))
    assert np.abs(means - half).mean() < 8


# x' = a x + c y, y' = b x + d y with x to the right and y down (ISO/IEC 14496-12, tkhd).
MATRICES = {
    (1, 0, 0, 1): (False, 0),
    (0, 1, -1, 0): (False, -90),
    (0, -1, 1, 0): (False, 90),
    (-1, 0, 0, -1): (False, 180),
    (-1, 0, 0, 1): (True, 0),
    (1, 0, 0, -1): (True, 180),
    (0, 1, 1, 0): (True, 90),
    (0, -1, -1, 0): (True, -90),
}


def set_matrix(data, matrix):
    """Return an mp4 file with another display matrix in its first track."""
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (65536 * value for value in matrix)
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


def show(image, matrix):
    """Move each pixel of a stored image to where the matrix shows it."""
    a, b, c, d = matrix
    (y, x), (h, w) = np.indices(image.shape[:2]), image.shape[:2]
    columns, rows = a * x + c * y, b * x + d * y
    shown = np.empty((w, h, 3) if b else (h, w, 3), np.uint8)
    shown[rows - rows.min(), columns - columns.min()] = image
    return shown


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_display_matrix_is_applied(tmp_path, matrix):
    data = pathlib.Path(write_clip(tmp_path / "clip.mp4", frames=3)).read_bytes()
    turned = VideoBytes("turned", set_matrix(data, matrix))
    with VideoBytes("plain", data).open() as reader:
        plain = show(reader.read(np.array([[2]]), (32, 64))[0, 0], matrix)
    with turned.open() as reader:
        np.testing.assert_array_equal(reader.read(np.array([[2]]), plain.shape[:2])[0, 0], plain)
    container, (stream,) = video_decoder.open_video("turned", turned.data)
    with container:
        frame = next(container.decode(stream))
    mirrored, rotation = MATRICES[matrix]
    found = video_decoder.frame_orientation(frame)
    assert found[0] == mirrored and (found[1] - rotation) % 360 == 0
    assert video_decoder.upright_size(frame) == ((128, 64) if matrix[1] else (64, 128))


def test_a_frame_whose_side_data_pyav_does_not_know_is_rotated():
    image, exif, file = Image.fromarray(draw(5)), Image.Exif(), io.BytesIO()
    exif[274] = 6  # orientation: rotate clockwise
    image.save(file, "JPEG", exif=exif)
    container, (stream,) = video_decoder.open_video("photo", file.getvalue())
    with container:
        frame = next(container.decode(stream))
    with contextlib.suppress(ValueError):
        frame.side_data.get("DISPLAYMATRIX")  # "31 is not a valid Type" before some release
    assert video_decoder.frame_orientation(frame) == (False, -90)


def test_frames_are_freed_without_garbage_collection(tmp_path):
    media = VideoFile(write_clip(tmp_path / "x.mp4", frames=12))
    with collected():
        with media.open() as reader:
            reader.read(np.arange(12)[None], (64, 128))
        del reader
        assert not any(isinstance(each, av.VideoFrame) for each in gc.get_objects())


@contextlib.contextmanager
def collected():
    """Collect garbage, and no more until the end."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def write_streams(path, *streams):
    """Write a file with video streams of (codec, height, frames, disposition), all interleaved."""
    with av.open(str(path), "w") as file:
        outputs = []
        for codec, height, _, disposition in streams:
            output = file.add_stream(codec, rate=25)
            output.width, output.height = 2 * height, height
            output.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            output.disposition = disposition
            outputs.append(output)
        for number in range(max(frames for _, _, frames, _ in streams)):
            for video, (output, stream) in enumerate(zip(outputs, streams, strict=True)):
                if number < stream[2]:
                    image = av.VideoFrame.from_ndarray(draw(number, video), format="rgb24")
                    file.mux(output.encode(image.reformat(format=output.pix_fmt)))
        for output in outputs:
            file.mux(output.encode())
    return str(path)


@pytest.mark.parametrize("name", ["still.mkv", "still.avi"])
def test_a_stream_without_frames_is_not_read(tmp_path, name):
    empty, still = ("mpeg4", 128, 0, Disposition.default), ("mpeg4", 64, 1, Disposition(0))
    with VideoFile(write_streams(tmp_path / name, empty, still)).open() as reader:
        assert reader.num_frames == 1


def test_frames_before_a_stream_that_no_head_states_are_read(tmp_path):
    def decode(frames):
        yield next(frames)
        raise IndexError("list index out of range")  # as PyAV's

    path = write_clip(tmp_path / "b.avi", frames=3, codec="mpeg4")
    with VideoFile(path).open() as reader, av.open(path) as container:
        damaged = mock.Mock(spec=container, streams=container.streams)
        damaged.decode.return_value = decode(container.decode(video=0))
        reader._cached = []
        reader._cache(damaged)
        assert reader.num_frames == 1
    with pytest.raises(VideoError, match="x: list index"), video_decoder._video_errors("x"):
        raise IndexError("list index out of range")


COVER = ("mjpeg", 128, 1, Disposition.attached_pic)
MAIN = ("libx264", 64, 20, Disposition(0))
DEFAULT = ("libx264", 64, 20, Disposition.default)
POSTER = ("libx264", 128, 1, Disposition.default)
PREVIEW = ("libx264", 32, 20, Disposition.default)


@pytest.mark.parametrize(
    ("name", "streams", "video", "count"),
    [
        ("cover.mp4", (MAIN, COVER), 0, 1),
        ("poster.mp4", (POSTER, MAIN), 1, 2),
        ("poster.mkv", (POSTER, MAIN), 1, 2),
        ("thumbnail.mkv", (("mjpeg", 128, 1, Disposition(0)), MAIN), 1, 2),
        ("preview.mp4", (PREVIEW, MAIN), 1, 2),
        ("preview.mkv", (PREVIEW, MAIN), 1, 2),
        ("default.mkv", (MAIN, DEFAULT), 1, 2),
        ("cameras.mkv", (MAIN, MAIN), 0, 2),
        ("cameras.avi", (PREVIEW, MAIN), 1, 2),
    ],
)
def test_the_video_is_the_largest_of_several_streams(tmp_path, name, streams, video, count):
    path = write_streams(tmp_path / name, *streams)
    frames = np.array([[0, 19, 7]])
    for media in (VideoFile(path), VideoBytes("memory", pathlib.Path(path).read_bytes())):
        with media.open() as reader:
            assert (reader.num_frames, reader.fps) == (20, 25)
            numbers, videos = read_numbers(reader.read(frames, (64, 128)))
            np.testing.assert_array_equal(numbers, frames)
            assert set(videos.flat) == {video}
    container, found = video_decoder.open_video(path)
    with container:
        assert len(found) == count and found[0].index == video


def put_cover_first(path):
    """Move the metadata of an mp4 file, and so its cover art, before its tracks."""

    def boxes(start, end):
        while start < end:
            size = int.from_bytes(data[start : start + 4])
            yield data[start + 4 : start + 8], data[start : start + size]
            start += size

    data = path.read_bytes()
    kinds = dict(boxes(0, len(data)))
    start = data.index(kinds[b"moov"]) + 8
    parts = sorted(
        boxes(start, start + len(kinds[b"moov"]) - 8),
        key=lambda box: [b"mvhd", b"udta", b"trak"].index(box[0]),
    )
    moov = b"".join(content for _, content in parts)
    path.write_bytes(data[:start] + moov + data[start + len(moov) :])


def test_cover_art_is_never_the_video(tmp_path):
    path = tmp_path / "cover.mp4"
    write_streams(path, MAIN, COVER)
    put_cover_first(path)
    with av.open(str(path)) as file:
        assert file.streams.video[0].disposition & Disposition.attached_pic
    with VideoFile(str(path)).open() as reader:
        assert (reader.num_frames, reader.fps) == (20, 25)
    write_streams(tmp_path / "song.mp4", COVER)
    with pytest.raises(VideoError, match="song.mp4: it has no video stream"):
        VideoFile(str(tmp_path / "song.mp4")).open().__enter__()


def write_stamped(path, milliseconds, codec="libx264", rate=1000):
    """Write a clip with time stamps, and without a frame rate in Matroska."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, stamp in enumerate(milliseconds):
            image = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            image.pts, image.time_base = int(stamp), Fraction(1, 1000)
            file.mux(stream.encode(image))
        file.mux(stream.encode())
    data = bytearray(path.read_bytes())
    at = data.find(b"\x23\xe3\x83")  # DefaultDuration
    if rate == 1000 and at > 0:
        size = 4 + (data[at + 3] & 0x7F)
        data[at : at + size] = bytes([0xEC, 0x80 | size - 2]) + bytes(size - 2)  # Void
        path.write_bytes(data)
    return str(path)


JITTER = np.cumsum([0] + [25, 42, 33, 33] * 5)


@pytest.mark.parametrize(
    ("name", "codec", "stamps", "rate", "fps"),
    [
        ("browser.webm", "libvpx", JITTER, 1000, 20 / 0.665),
        ("screen.mkv", "libx264", 40 + JITTER, 1000, 20 / 0.665),
        ("slides.mkv", "libx264", [0, 1100, 2000, 3300], 1000, 3 / 3.3),
        ("two.mkv", "libx264", [0, 40], 1000, 25),
        ("live.flv", "flv", JITTER, 1000, 20 / 0.665),  # decoded from the start
        ("dim.mkv", "libx264", np.arange(20) * 100, 30, 10),  # every frame states 1 / 30 s
        ("lost.mkv", "libx264", np.delete(np.arange(30) * 40, 7), 25, 25),
        ("paused.mkv", "libx264", np.arange(20) * 40 + 9000 * (np.arange(20) > 9), 25, 25),
        ("rounded.mkv", "libx264", [0, 17, 33, 50, 67], 60, 60),
    ],
)
def test_the_rate_is_the_time_stamps_unless_the_stated_one_fits(
    tmp_path, name, codec, stamps, rate, fps
):
    with VideoFile(write_stamped(tmp_path / name, stamps, codec, rate)).open() as reader:
        assert reader.fps == pytest.approx(fps, rel=1e-3)
        assert reader.num_frames == len(stamps) and isinstance(reader, HasTimes)
        np.testing.assert_allclose(reader.times, (stamps - np.asarray(stamps)[0]) / 1000, atol=1e-6)
        numbers = read_numbers(reader.read(np.arange(reader.num_frames)[None], (64, 128)))[0, 0]
    np.testing.assert_array_equal(numbers, np.arange(len(stamps)))


def test_time_stamps_out_of_order_are_not_used(tmp_path):
    path = write_clip(tmp_path / "h264.avi", frames=20, g=20, bf=2)
    with av.open(path) as file:
        stamps = [frame.pts for frame in file.decode(video=0)]
    assert stamps != sorted(stamps)
    with VideoFile(path).open() as reader:
        assert reader.fps == 25
        np.testing.assert_allclose(reader.times, np.arange(20) / 25)
        numbers = read_numbers(reader.read(np.arange(20)[None], (64, 128)))[0, 0]
    np.testing.assert_array_equal(numbers, np.arange(20))


def test_bytes_read_like_the_file_and_media_travel(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", frames=20)
    data = VideoBytes("a clip", pathlib.Path(path).read_bytes())
    assert len(repr(data)) < 100
    frames = np.array([[0, 19, 7]])
    with VideoFile(path).open() as one, pickle.loads(pickle.dumps(data)).open() as two:
        np.testing.assert_array_equal(one.read(frames, (32, 32)), two.read(frames, (32, 32)))


def test_an_excerpt_is_a_video_of_its_own(tmp_path):
    whole = VideoFile(write_clip(tmp_path / "clip.mp4", frames=40))
    with Excerpt(whole, 10, 26).open() as reader:
        assert reader.num_frames == 16 and reader.fps == 25
        clips = reader.read(np.array([[0, 15], [3, 3]]), (64, 128))
        np.testing.assert_array_equal(read_numbers(clips)[0], [[10, 25], [13, 13]])
        for wrong in (-1, 16):
            with pytest.raises(VideoError, match="clip.mp4"):
                reader.read(np.array([[0, wrong]]), (64, 128))
    with pytest.raises(VideoError, match="clip.mp4.*only 40 frames"), Excerpt(whole, 30, 41).open():
        pass
    with pytest.raises(ValueError, match="stop must be at least 6, got 5"):
        Excerpt(whole, 5, 5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "fetch .*`git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "a web page is in its place"),
        (b"not a video" * 100, "Invalid data"),
        (b"\0" * 4000, "Invalid data"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, data, message):
    path = tmp_path / "some.mp4"
    path.write_bytes(data)
    for handle in (VideoBytes(str(path), data), VideoFile(str(path))):
        with pytest.raises(VideoError, match=f"^{path}: .*{message}"), handle.open():
            pass


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(VideoError, match=f"^{path}: "), VideoFile(str(path)).open():
            pass


def test_a_video_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.avi", codec="mpeg4")
    monkeypatch.setattr(video_decoder, "MAX_CACHED_BYTES", 100_000)
    with (
        pytest.raises(VideoError, match="clip.avi: more than 100000 bytes"),
        VideoFile(path).open(),
    ):
        pass


def test_the_logging_call_that_deadlocks_is_not_made():
    for path in pathlib.Path(video_decoder.__file__).parent.glob("*.py"):
        assert "logging.set_level(" not in path.read_text(encoding="utf-8")
