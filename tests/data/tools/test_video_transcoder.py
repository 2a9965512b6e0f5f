import json
import os
import pathlib
import pickle
import re
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.data.misbehaving import LINES, Named
from tests.data.tools.test_video_index import kill_and_repeat, write_set
from tests.data.video.test_video_decoder import (
    MAIN,
    POSTER,
    read_numbers,
    set_matrix,
    write_clip,
    write_streams,
)
from vrl_jax.data.datasets import indexed, transcoded
from vrl_jax.data.datasets.indexed import Indexed, Row
from vrl_jax.data.datasets.transcoded import Prepared
from vrl_jax.data.datasets.video_folders import ListFile
from vrl_jax.data.tools import h264, video_index, video_transcoder
from vrl_jax.data.video.media_containers import ArrayRecord
from vrl_jax.data.video.video_decoder import VideoBytes, VideoFile
from vrl_jax.data.video_dataset import Splits, VideoError

READABLE = [0, 1, 4, 5, 6]


@pytest.fixture(scope="module")
def manifest_dir(tmp_path_factory):
    """The index of a small data set."""
    root = tmp_path_factory.mktemp("set")
    write_clip(root / "plain.mp4", frames=20, g=250, bf=3)
    write_clip(root / LINES[1].split(",")[2], frames=21, video=1, codec="mpeg4", g=12, bf=2)
    video_index.index_videos(Named(str(write_set(root, LINES))), root / "index", workers=0)
    return root / "index"


def files(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def test_every_frame_is_the_original_one(manifest_dir, tmp_path, capsys):
    video_transcoder.main(
        [str(manifest_dir), f"--out={tmp_path}", "--short-side=32", "--workers=2"]
    )
    output = capsys.readouterr().out
    assert "5 videos in 1 shards" in output
    numbers = re.search(r"(\S+) before, (\S+) now, (\S+) times", output)
    old, new, times = map(float, numbers.groups())
    assert times == pytest.approx(new / old, abs=0.11) and old > 0
    data = Prepared(str(tmp_path))
    assert isinstance(data, Splits)
    train, test = data.train(), data.test()
    assert train.classes == test.classes == {"class": ("a", "b")}
    assert not train.mirror_safe and not train.reverse_safe
    videos = [*train.videos, *test.videos]
    assert len(train) == 2 and data.pretrain() == train
    for number, video in zip(READABLE, videos, strict=True):
        split, label, name = LINES[number].split(",")
        assert (video.id, video.labels) == (name, {"class": int(label)})
        with pickle.loads(pickle.dumps(video)).media.open() as reader:
            assert reader.num_frames == 20 + number and reader.fps == pytest.approx(25)
            frames = np.arange(reader.num_frames)[None]
            numbers, sources = read_numbers(reader.read(frames, (32, 64)))
            np.testing.assert_array_equal(numbers, frames)
            assert set(sources.flat) == {number}


def test_records_are_as_documented(manifest_dir, tmp_path):
    assert video_transcoder.transcode_videos(manifest_dir, tmp_path, short_side=32, workers=0) == 0
    assert sorted(os.listdir(tmp_path)) == [
        "dataset.json",
        "failed.jsonl",
        "videos-00000-of-00001.array_record",
        "videos.jsonl",
    ]
    about = json.loads((tmp_path / "dataset.json").read_text())
    assert about["splits"] == {"pretrain": 2, "train": 2, "test": 3} and about["short_side"] == 32
    lines = [json.loads(line) for line in (tmp_path / "videos.jsonl").read_text().splitlines()]
    for line, video in zip(lines[:2], Prepared(str(tmp_path)).train().videos, strict=True):
        stored = ArrayRecord(str(tmp_path / line["shard"]), line["record"])
        header, mp4 = transcoded.unpack_record(stored.read())
        assert header == {key: line[key] for key in transcoded.HEADER} and header["id"] == video.id
        (tmp_path / "video.mp4").write_bytes(mp4)
        with av.open(str(tmp_path / "video.mp4")) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
            assert (stream.height, stream.width) == (32, 64) == (header["height"], header["width"])
            packets = [packet for packet in container.demux(stream) if packet.size]
            keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
            assert len(packets) == header["frames"] > 16
            assert keys[0] == 0 and max(np.diff([*keys, len(packets)])) <= 16
            assert all(packet.pts == packet.dts for packet in packets)  # no B-frame
    for record in (b"", b"abc", b"\xff\xff\xff\xffabc"):
        with pytest.raises(ValueError, match="is not a transcoded video"):
            transcoded.unpack_record(record)


def test_shards_depend_on_the_manifest_alone(manifest_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(video_transcoder, "BYTES_PER_PIXEL", 2.5)
    for name, workers in (("one", 0), ("two", 2)):
        video_transcoder.transcode_videos(manifest_dir, tmp_path / name, 64, workers, shard_mb=1)
    once = files(tmp_path / "one")
    assert once == files(tmp_path / "two")
    shards = [name for name in once if name.endswith(".array_record")]
    assert len(shards) == 2 and shards[1] == "videos-00001-of-00002.array_record"
    monkeypatch.setattr(video_transcoder, "_finish", lambda *_: 0)  # as if killed before it
    video_transcoder.transcode_videos(manifest_dir, tmp_path / "cut", 64, 0, shard_mb=1)
    parts = files(tmp_path / "cut")
    first = tmp_path / "cut" / shards[0]
    before = first.stat()
    assert parts[shards[0]] == once[shards[0]] and "dataset.json" not in parts
    with pytest.raises(ValueError, match="no finished shards"):
        Prepared(str(tmp_path / "cut")).test()
    (tmp_path / "cut" / shards[1]).rename(tmp_path / "cut" / f"{shards[1]}.part")
    monkeypatch.undo()
    monkeypatch.setattr(video_transcoder, "BYTES_PER_PIXEL", 2.5)
    video_transcoder.transcode_videos(manifest_dir, tmp_path / "cut", 64, 0, shard_mb=1)
    assert first.stat() == before and files(tmp_path / "cut") == once
    last = tmp_path / "two" / shards[1]
    before = (tmp_path / "two" / shards[0]).stat()
    video_transcoder.transcode_videos(manifest_dir, tmp_path / "two", 64, 0, shard_mb=1)
    assert files(tmp_path / "two") == once
    with pytest.raises(ValueError, match="short_side: was 64, is 48.* choose another --out"):
        video_transcoder.transcode_videos(manifest_dir, tmp_path / "two", 48, shard_mb=2)
    assert (tmp_path / "two" / shards[0]).stat() == before
    last.unlink()
    with pytest.raises(ValueError, match="listed videos are missing"):
        Prepared(str(tmp_path / "two")).test()


def test_what_cannot_be_transcoded_is_written_down(manifest_dir, tmp_path, capsys):
    rows, about = indexed.load_manifest(manifest_dir)
    source, out = tmp_path / "index", tmp_path / "out"
    source.mkdir()
    longer = [Row(**{**vars(row), "frames": 50}) if row.frames == 21 else row for row in rows]
    indexed.save_manifest(source, longer, about)
    name = LINES[1].split(",")[2]
    for _ in range(2):  # and says so again
        with pytest.raises(
            SystemExit, match="^error: 1 videos failed: .*failed.jsonl has the reasons"
        ):
            video_transcoder.main([str(source), f"--out={out}", "--short-side=32", "--workers=0"])
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert failed == [{"id": name, "reason": "only 21 of 50 frames can be decoded"}]
    data = Prepared(str(out))
    assert [video.id for video in data.train().videos] == ["plain.mp4"]
    failed = [row for row in rows if not row.ok] + [row for row in rows if row.id == name]
    for part in ("train", "test"):
        expected = sum(part in row.splits for row in failed)
        assert data.list_part(part).left_out == expected
        unreadable = expected - (part in failed[-1].splits)
        assert Indexed(str(source)).list_part(part).left_out == unreadable
    assert sum(data.list_part(part).left_out for part in ("train", "test")) > 1
    with data.test()[0].media.open() as reader:  # the next record is not taken for the missing one
        assert reader.num_frames == 24
    video_index.exclude_videos(out / "failed.jsonl", source)
    assert not indexed.load_manifest(source)[0][1].ok


def test_a_damaged_record_is_a_video_error(manifest_dir, tmp_path):
    video_transcoder.transcode_videos(manifest_dir, tmp_path, short_side=32, workers=0)
    path = tmp_path / "videos-00000-of-00001.array_record"
    data = bytearray(path.read_bytes())
    at = data.index(b"ftypisom") + 100
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="plain.mp4: .*record 0"):
        with Prepared(str(tmp_path)).train()[0].media.open():
            pass


def test_a_full_disk_is_one_line(manifest_dir, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, _):
            self.path = path

        def write(self, record):
            pathlib.Path(self.path).write_bytes(record[:10])

        def close(self):
            raise RuntimeError(f"write() failed: No space left on device; writing {self.path}")

    command = [str(manifest_dir), f"--out={tmp_path}", "--short-side=32", "--workers=0"]
    with monkeypatch.context() as patched:
        patched.setattr(video_transcoder, "ArrayRecordWriter", Full)
        with pytest.raises(SystemExit, match="error: .*record cannot be written: .*No space left"):
            video_transcoder.main(command)
    assert not [*tmp_path.glob("*.array_record"), *tmp_path.glob("videos*.jsonl")]
    video_transcoder.main(command)
    assert len(list(tmp_path.glob("*.array_record"))) == 1


def test_a_shard_that_does_not_read_back_has_no_name(manifest_dir, tmp_path, monkeypatch):
    pack = transcoded.pack_record
    monkeypatch.setattr(
        transcoded, "pack_record", lambda header, mp4: pack(header, mp4[: len(mp4) // 2])
    )
    with pytest.raises(VideoError, match="part cannot be read back, plain.mp4: "):
        video_transcoder.transcode_videos(manifest_dir, tmp_path, short_side=32, workers=0)
    assert not list(tmp_path.glob("*.array_record"))
    with pytest.raises(ValueError, match="no finished shards.*vrl_jax.data.prepare MANIFEST_DIR"):
        Prepared(str(tmp_path)).train()
    monkeypatch.undo()
    assert video_transcoder.transcode_videos(manifest_dir, tmp_path, short_side=32, workers=0) == 0
    assert len(Prepared(str(tmp_path)).train()) == 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((240, 320), (128, 170)),
        ((320, 240), (170, 128)),
        ((100, 128), (100, 128)),
        ((101, 333), (100, 332)),
        ((1, 1), (2, 2)),
    ],
)
def test_the_short_side_is_scaled_and_all_are_even(size, expected):
    assert h264.scaled_size(*size, 128) == expected


def test_colours_and_rate_stay(tmp_path):
    path, rate = str(tmp_path / "a.mp4"), Fraction(30000, 1001)
    colours = np.array([[200, 40, 40], [40, 180, 60], [30, 60, 220], [128, 128, 128]], np.uint8)
    image = np.repeat(np.repeat(colours[None], 64, 0), 32, 1)
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    row = Row("a", ("train",), path, "a.mp4", {}, 5, float(rate), 64, 128)
    with VideoBytes("a", h264.transcode_video(row, 32)).open() as reader:
        assert reader.fps == float(rate)
        pixels = reader.read(np.array([[4]]), (32, 64))[0, 0, 16, 8::16]
    np.testing.assert_allclose(pixels.astype(int), colours.astype(int), atol=6)


def test_bytes_do_not_depend_on_the_instruction_set(videos, monkeypatch):
    path = str(videos / "diverse" / "decord" / "flipping_a_pancake.mkv")
    row = Row("a", ("train",), path, "a", {}, 20, 30.0, 256, 340)
    fast, params = h264.transcode_video(row, 64), h264.CODEC["x264-params"]
    monkeypatch.setitem(h264.CODEC, "x264-params", f"{params}:asm=0")
    assert h264.transcode_video(row, 64) == fast


@pytest.mark.parametrize("matrix", [(0, 1, 1, 0), (-1, 0, 0, 1)])
def test_a_mirrored_video_of_several_streams_becomes_upright(tmp_path, matrix):
    path = tmp_path / "clip.mp4"
    write_streams(path, MAIN, POSTER)
    path.write_bytes(set_matrix(path.read_bytes(), matrix))
    values = video_index._check_video((VideoFile(str(path)), False))
    row = Row("a", ("train",), str(path), path.name, {}, **values)
    assert (row.streams, row.mirrored, row.frames) == (2, True, 20)
    assert (row.height, row.width) == ((128, 64) if matrix[1] else (64, 128))
    frames, size = np.array([[0, 13]]), (row.height, row.width)
    with VideoFile(str(path)).open() as old:
        was = old.read(frames, size)
    with VideoBytes("a", h264.transcode_video(row, 64)).open() as new:
        assert new.num_frames == 20
        gap = was.astype(int) - new.read(frames, size)
    assert np.abs(gap).mean() < 6


def test_a_rotated_video_becomes_upright(videos, tmp_path):
    (tmp_path / "list.txt").write_text("video_90.mov 0\n")
    path = str(tmp_path / "list.txt")
    source = ListFile(str(videos / "diverse" / "decord"), path, path)
    video_index.index_videos(source, tmp_path / "index")
    video_transcoder.transcode_videos(
        tmp_path / "index", tmp_path / "out", short_side=64, workers=0
    )
    old, new = source.test()[0], Prepared(str(tmp_path / "out")).test()[0]
    with old.media.open() as was, new.media.open() as now:
        frames = np.array([[0, 2]])
        size = h264.scaled_size(568, 320, 64)
        gap = was.read(frames, size).astype(int) - now.read(frames, size)
    assert np.abs(gap).mean() < 6


@pytest.mark.slow
def test_killing_changes_nothing(tmp_path, rng):
    kills, videos = 10, 75
    lines = [f"{'train' if n % 3 else 'test'},{n % 2},{n}.mp4" for n in range(videos)]
    root = write_set(tmp_path / "set", lines, frames=90)
    video_index.index_videos(Named(str(root)), tmp_path / "index")
    once, out = tmp_path / "once", tmp_path / "killed"
    code = "import sys; from vrl_jax.data.tools import video_transcoder as tool; "
    code += "tool.BYTES_PER_PIXEL = 5; "
    command = [sys.executable, "-c", code + "tool.main(sys.argv[1:])", str(tmp_path / "index")]
    command += ["--short-side=64", "--workers=2", "--shard-mb=4"]

    def shards(out):
        return len(list(out.glob("*.array_record"))) if out.is_dir() else 0

    assert kill_and_repeat([*command, f"--out={once}"], once, shards, rng, 0) == 0
    assert shards(once) >= videos // 2
    assert kill_and_repeat([*command, f"--out={out}"], out, shards, rng, kills) == kills
    assert files(once) == files(out)
