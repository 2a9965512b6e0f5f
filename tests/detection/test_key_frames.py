import zipfile

import av
import numpy as np
import pytest

from tests.data.video.test_video_decoder import (
    MAIN,
    POSTER,
    read_numbers,
    set_matrix,
    write_clip,
    write_stamped,
    write_streams,
)
from vrl_jax.data.frame_sampling import Sampling, uniform_clips
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video.video_decoder import Excerpt, VideoFile
from vrl_jax.data.video_dataset import FrameReader, VideoError, VideoHandle
from vrl_jax.detection.key_frames import (
    KeyFrame,
    UnreadableVideo,
    frame_size,
    letterbox,
    letterbox_boxes,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=40)


def read(media, sampling, size):
    with media.open() as reader:
        assert isinstance(reader, FrameReader)
        return reader.read(uniform_clips(reader.num_frames, reader.fps, sampling), size)[0]


@pytest.mark.parametrize(
    "time, seconds, expected",
    [
        (0.8, True, [14, 17, 20, 23, 26]),
        (20, False, [14, 17, 20, 23, 26]),
        (0.04, True, [0, 0, 1, 4, 7]),
        (38, False, [32, 35, 38, 39, 39]),
    ],
)
def test_a_clip_is_centred_on_its_key_frame(path, time, seconds, expected):
    got = read(KeyFrame(VideoFile(path), (64, 128), time, seconds), Sampling(5, 3, 1), (64, 128))
    with VideoFile(path).open() as whole:
        np.testing.assert_array_equal(got, whole.read(np.array([expected]), (64, 128))[0])
    assert len(np.unique(got.reshape(5, -1), axis=0)) == len(set(expected))


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """Ten frames in the first half of a second, one a second later, then ten a second."""
    stamps = np.concatenate([np.arange(10) * 50, 1450 + np.arange(10) * 100])
    return write_stamped(tmp_path_factory.mktemp("clip") / "varying.mkv", stamps)


@pytest.mark.parametrize(
    "time, expected",
    [(0.0, 0), (0.21, 4), (0.9, 9), (1.0, 10), (1.45, 10), (1.61, 12), (2.35, 19), (2.38, 19)],
)
def test_a_key_frame_is_found_by_its_time_stamp(varying, time, expected):
    for start, media in ((0, VideoFile(varying)), (10, Excerpt(VideoFile(varying), 10, 20))):
        if expected >= start:
            shift = 1.45 if start else 0.0
            if time - shift < -0.05:
                continue
            clip = read(KeyFrame(media, (64, 128), time - shift), Sampling(1, 1, 1), (64, 128))
            assert read_numbers(clip)[0] == expected


def test_a_time_outside_of_a_varying_video_is_named(varying):
    for time in (-0.2, 2.6):
        with pytest.raises(VideoError, match=r"key frame (-2|21) is outside.* 20 frames at 8.08"):
            KeyFrame(VideoFile(varying), (64, 128), time).open().__enter__()


def test_a_key_frame_is_of_the_video_and_upright(tmp_path):
    path = tmp_path / "clip.mp4"
    write_streams(path, MAIN, POSTER)
    path.write_bytes(set_matrix(path.read_bytes(), (0, 1, 1, 0)))
    assert frame_size(str(path)) == (128, 64)
    got = read(KeyFrame(VideoFile(str(path)), (128, 64), 0.4), Sampling(1, 1, 1), (128, 64))
    numbers, videos = read_numbers(got.swapaxes(1, 2))
    assert (numbers, videos) == (10, 0)


def test_a_stride_at_another_rate(path):
    """Of 25 frames a second, every 4th at 50 is every 2nd."""
    got = read(KeyFrame(VideoFile(path), (64, 128), 0.8), Sampling(3, 4, 1, 50.0), (64, 128))
    with VideoFile(path).open() as whole:
        np.testing.assert_array_equal(got, whole.read(np.array([[18, 20, 22]]), (64, 128))[0])


@pytest.mark.parametrize("size", [(32, 32), (20, 60), (64, 64)])
def test_the_whole_frame_is_placed_with_its_aspect(path, size):
    got = read(KeyFrame(VideoFile(path), (64, 128), 0.8), Sampling(1, 1, 1), size)[0]
    top, left, height, width = letterbox((64, 128), size)
    assert (height, width) == {32: (16, 32), 20: (20, 40), 64: (32, 64)}[size[0]]
    with VideoFile(path).open() as whole:
        frame = whole.read(np.array([[20]]), (height, width))[0, 0]
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = frame
    np.testing.assert_array_equal(got, canvas)
    assert 2 * top + height == size[0] and 2 * left + width == size[1]


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (30, 30)])
def test_boxes_move_with_the_picture(rng, shape):
    size, corners = (40, 60), rng.uniform(0, 0.5, (9, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 0.5, (9, 2))], 1)
    top, left, height, width = letterbox(shape, size)
    for box, moved in zip(boxes, letterbox_boxes(boxes, shape, size), strict=True):
        for side in range(4):
            pixels = left + box[side] * width if side % 2 == 0 else top + box[side] * height
            assert moved[side] == pytest.approx(pixels / (60 if side % 2 == 0 else 40))
    np.testing.assert_array_equal(letterbox_boxes(boxes, (20, 30), size), boxes)


def test_what_is_not_there_is_told(path):
    for time, seconds in ((1.6, True), (-0.1, True), (40, False)):
        media = KeyFrame(VideoFile(path), (64, 128), time, seconds)
        with pytest.raises(VideoError, match=r"key frame (40|-2) is outside.* 40 frames at 25 per"):
            with media.open():
                pass
    media = UnreadableVideo("it is lost")
    assert isinstance(media, VideoHandle)
    with pytest.raises(VideoError, match="it is lost"):
        KeyFrame(media, (1, 1), 0.0).open().__enter__()


class Counted(VideoFile):
    def open(self):
        opened.append(self.path)
        return super().open()


opened = []


def test_a_video_stays_open_for_its_next_key_frame(path, tmp_path):
    other = write_clip(tmp_path / "other.mp4", frames=40)
    sampling, size, got = Sampling(3, 2, 1), (32, 64), []
    for name in (path, path, path, other, path):
        got.append(read(KeyFrame(Counted(name), (64, 128), 0.4 + 0.04 * len(got)), sampling, size))
    assert opened == [path, other, path]
    for number in (0, 1, 2):
        media = KeyFrame(VideoFile(path), (64, 128), 0.4 + 0.04 * number)
        np.testing.assert_array_equal(got[number], read(media, sampling, size))
    with pytest.raises(VideoError):
        read(KeyFrame(Counted(path), (64, 128), 9.0), sampling, size)
    read(KeyFrame(Counted(path), (64, 128), 0.4), sampling, size)
    assert opened == [path, other, path, path, path]  # VideoFile had its place; then an error


def test_a_video_without_a_rate_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "clip.zip", "w") as file:
        file.writestr("1.jpg", b"")
    media = KeyFrame(ZippedFrames(str(tmp_path / "clip.zip")), (64, 128), 0.0)
    with pytest.raises(VideoError, match="clip.zip.*it has no frame rate"):
        with media.open():
            pass


def test_the_shape_is_the_upright_pictures(path, tmp_path, videos):
    assert frame_size(path) == (64, 128)
    (tmp_path / "damaged.mp4").write_bytes(b"nothing")
    for name in ("damaged.mp4", "absent.mp4"):
        with pytest.raises(VideoError, match=name):
            frame_size(str(tmp_path / name))
    rotated = 0
    for file in sorted((videos / "diverse").rglob("*.m*")):
        try:
            height, width = frame_size(str(file))
        except VideoError:
            continue
        with av.open(str(file)) as container:
            context = container.streams.video[0].codec_context
            rotated += (context.height, context.width) == (width, height) != (height, width)
    assert rotated
