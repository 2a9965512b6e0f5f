import dataclasses
import importlib
import io
import json
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import ExifTags, Image

from tests.data.video.test_video_decoder import draw, read_numbers, write_clip
from vrl_jax.data.datasets.sequence_examples import SequenceExamples
from vrl_jax.data.datasets.shard_paths import expand_pattern, list_shards
from vrl_jax.data.datasets.tar_shards import WebDataset
from vrl_jax.data.datasets.tfds_folders import TfdsFolder
from vrl_jax.data.video import tfrecord
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video_dataset import Listing, MissingPart, VideoError

Example, SequenceExample = tfrecord.MESSAGES["Example"], tfrecord.MESSAGES["SequenceExample"]


def encode(number, video=0, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(draw(number, video)).save(file, kind)
    return file.getvalue()


def add(features, key, *values):
    entry = features.feature.add(key=key)
    kind = "bytes_list" if isinstance(values[0], bytes) else "int64_list"
    getattr(entry.value, kind).value.extend(values)


def example(label, *values, video="video"):
    message = Example()
    add(message.features, video, *values)
    add(message.features, "label", label)
    return message.SerializeToString()


def sequence(images, **context):
    message = SequenceExample()
    for key, value in context.items():
        add(message.context, key.replace("_", "/"), value)
    steps = message.feature_lists.feature_list.add(key="image/encoded").value.feature
    for image in images:
        steps.add().bytes_list.value.append(image)
    return message.SerializeToString()


def write_tfrecords(path, *data):
    """Checksums are left zero: nothing here reads them."""
    path.write_bytes(b"".join(struct.pack("<QI", len(d), 0) + d + bytes(4) for d in data))


def write_array_records(path, *data):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in data:
        writer.write(record)
    writer.close()


def write_tar(path, **members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            data = data if isinstance(data, bytes) else str(data).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three video files of 12 frames that say which video they are."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        pathlib.Path(write_clip(folder / f"{video}.mp4", frames=12, video=video)).read_bytes()
        for video in range(3)
    ]


def numbers_of(video, frames=((3, 11), (0, 3))):
    """Return the (frame, video) numbers that are read, after a trip to a worker."""
    with pickle.loads(pickle.dumps(video.media)).open() as reader:
        clip = reader.read(np.array(frames), (64, 128))
    return read_numbers(clip)[0].tolist(), set(read_numbers(clip)[1].flat)


def test_tars_are_samples_by_key(tmp_path, clips):
    write_tar(
        tmp_path / "set-000009.tar",
        **{"a/x.1.mp4": clips[0], "a/x.cls": "2\n", "a/x.json": '{"label": 0}', "a/x.txt": "dog"},
        **{"b/x.MP4": clips[1], "b/x.json": json.dumps({"cls": 0})},
    )
    write_tar(tmp_path / "set-000010.tar", **{"x.cls": "\ufeff1", "x.mp4": clips[2]})
    write_tar(tmp_path / "set-000011.tar", **{"x.cls": 4, "x.mp4": clips[2]})
    pattern = str(tmp_path / "set-{000009..000010}.tar")
    data = WebDataset(pattern, str(tmp_path))
    source = data.train()
    assert [(video.id, video.labels["class"]) for video in source.videos] == [
        ("set-000009.tar/a/x", 2),
        ("set-000009.tar/b/x", 0),
        ("set-000010.tar/x", 1),
    ]
    assert source.classes == {"class": ("0", "1", "2", "3", "4")} and len(data.test()) == 4
    for number in range(3):
        assert numbers_of(source[number]) == ([[3, 11], [0, 3]], {number})
    names = tmp_path / "classes.txt"
    names.write_text("0 run\n1 walk\n2 jump\n")
    dataset = WebDataset(pattern, "", str(names), mirror_safe=False).pretrain()
    assert dataset.classes == {"class": ("run", "walk", "jump")} and not dataset.mirror_safe
    with pytest.raises(ValueError, match="set-000011.tar.* must be 0 to 2, got 4"):
        WebDataset(str(tmp_path), "", str(names)).train()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (
            {"a.mp4": b"1", "b.mp4": b"1", "b.cls": 0},
            "bad.tar: sample bad.tar/a has no label, but others have",
        ),
        (
            {"a.mp4": b"1", "a.cls": "dog", "b.mp4": b"1", "b.cls": 3},
            "bad.tar: sample bad.tar/b: label must be a name, as 'dog' is, got the number 3",
        ),
        ({"a.mp4": b"1", "a.cls": 1, "b.cls": 1}, "bad.tar: sample b has no video"),
        ({"a.mp4": b"1", "a.json": "{"}, "bad.tar, at a: "),
        ({"a.mp4": b"1", "a.json": "[1]"}, r"bad.tar, at a: a.json must be an object, got \[1\]"),
        ({}, "no sample"),
    ],
)
def test_a_bad_sample_is_named(tmp_path, members, says):
    write_tar(tmp_path / "bad.tar", **members)
    with pytest.raises(ValueError, match=says):
        WebDataset(str(tmp_path)).train()


def test_a_tar_cut_off_is_named(tmp_path):
    path = tmp_path / "cut.tar"
    write_tar(path, **{"a.mp4": bytes(3000), "a.cls": 1, "b.cls": 1, "b.mp4": bytes(5000)})
    data = path.read_bytes()
    end = data.index(b"b.mp4") + 512 + 4000
    for size, key in ((end, "b"), (2000, "a"), (300, "no member")):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=f"cut.tar, at {key}: "):
            WebDataset(str(path)).train()


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.mp4", "b.mp4"):
            member = tarfile.TarInfo(name)
            if name == "b.mp4":
                member.type, member.linkname = kind, "a.mp4"
            tar.addfile(member)
    with pytest.raises(ValueError, match="b.mp4 is a link to a.mp4: pack files"):
        WebDataset(str(tmp_path)).train()


def test_sparse_files_in_a_tar_are_refused(tmp_path):
    member = tarfile.TarInfo("a.mp4")
    member.pax_headers = {"GNU.sparse.size": "4096", "GNU.sparse.map": "0,0"}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(ValueError, match="a.mp4 is sparse: pack without --sparse"):
        WebDataset(str(tmp_path)).train()


def test_a_tar_goes_on_to_its_end(tmp_path, capsys):
    write_tar(tmp_path / "x.tar", **{"a.mp4": b"1", "b.mp4": b"1"})
    data = (tmp_path / "x.tar").read_bytes()
    for damaged in (data + data, data[:1024] + b"?" * 512 + data[1536:], data[:1224]):
        (tmp_path / "x.tar").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, or joined from several"):
            WebDataset(str(tmp_path)).train()
    (tmp_path / "x.tar").write_bytes(data[:1024])
    assert len(WebDataset(str(tmp_path)).train()) == 1
    assert "x.tar lacks the zeros at the end of a tar" in capsys.readouterr().err


def test_shards_are_named_by_patterns(tmp_path):
    assert expand_pattern("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_pattern("{1..2}/{3..4}") == ["1/3", "1/4", "2/3", "2/4"]
    assert expand_pattern("f/train@2") == ["f/train-00000-of-00002", "f/train-00001-of-00002"]
    with pytest.raises(ValueError, match="2 of 2 shards of train_shards are missing: .*a-0.tar"):
        list_shards("train_shards", str(tmp_path / "a-{0..1}.tar"), r".+\.tar")
    for shards in ("", str(tmp_path)):
        with pytest.raises(ValueError, match="--config.data.train_shards=/path"):
            list_shards("train_shards", shards, r".+\.tar")


def write_tfds(root, kind, shards, split="train", names="run\nwalk\njump\n"):
    root.mkdir(exist_ok=True)
    (root / "label.labels.txt").write_text(names)
    write = {"array_record": write_array_records, "tfrecord": write_tfrecords}[kind]
    for number, shard in enumerate(shards):
        name = f"ucf101-{split}.{kind}-{number:05}-of-{len(shards):05}"
        write(root / name, *shard)


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
@pytest.mark.parametrize("image", ["JPEG", "PNG"])
def test_a_tfds_folder_holds_image_sequences(tmp_path, kind, image):
    videos = [
        example(label, *(encode(frame, video, image) for frame in range(length)))
        for video, (label, length) in enumerate(((2, 12), (0, 15), (1, 1)))
    ]
    write_tfds(tmp_path, kind, [videos[:2], videos[2:]])
    write_tfds(tmp_path, kind, [videos[:1]], split="test")
    data = TfdsFolder(str(tmp_path), fps=25)
    source = data.train()
    assert source.classes == {"class": ("run", "walk", "jump")}
    assert [video.labels["class"] for video in source.videos] == [2, 0, 1]
    assert source[2].id == f"ucf101-train.{kind}-00001-of-00002/0" and len(data.test()) == 1
    assert numbers_of(source[1], ((14, 0, 0, 7),)) == ([[14, 0, 0, 7]], {1})
    assert numbers_of(source[2], ((0,),)) == ([[0]], {2})
    with source[0].media.open() as reader:
        assert (reader.num_frames, reader.fps) == (12, 25)
        half = reader.read(np.array([[5]]), (32, 32))
        wide = reader.read(np.array([[5]]), (32, 64))
        np.testing.assert_array_equal(half, wide[..., 16:48, :])
        assert read_numbers(wide)[0] == 5
        with pytest.raises(VideoError, match="/0: frames must be 0 to .*, got 12 to 12"):
            reader.read(np.array([[12]]), (32, 32))


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_tfds_folder_holds_video_files(tmp_path, clips, kind):
    shard = [example(label, clips[video], video="clip") for video, label in enumerate((1, 2, 1))]
    write_tfds(tmp_path, kind, [shard])
    source = TfdsFolder(str(tmp_path), video="clip").train()
    for number in range(3):
        assert numbers_of(source[number]) == ([[3, 11], [0, 3]], {number})
    with pytest.raises(ValueError, match="has no feature 'video', but .*'clip', 'label'"):
        TfdsFolder(str(tmp_path), label="class").train()
    with pytest.raises(ValueError, match="/0 in .*: class must be one int or bytes, got "):
        TfdsFolder(str(tmp_path), video="clip", label="class").train()


def test_labels_of_a_tfds_folder_are_kept_beside_it(tmp_path, monkeypatch):
    write_tfds(tmp_path, "tfrecord", [[example(1, encode(0)), example(0, encode(1))]])
    data = TfdsFolder(str(tmp_path))
    first = data.train()
    with monkeypatch.context() as patch:
        patch.setattr(tfrecord, "parse_example", None)  # nothing is read a second time
        assert data.train() == first and first[0].labels == {"class": 1}
    write_tfds(tmp_path, "tfrecord", [[example(2, encode(0) + b"other data")]])
    assert [video.labels["class"] for video in data.train().videos] == [2]
    assert sorted(at.name for at in tmp_path.iterdir()) == [
        "label.labels.txt",
        "train-label.vrl_jax.json",
        "ucf101-train.tfrecord-00000-of-00001",
    ]


def test_classes_without_names_are_counted_over_all_splits(tmp_path):
    for split, label in (("train", 1), ("test", 3), ("validation", 6)):
        write_tfds(tmp_path, "tfrecord", [[example(label, encode(0))]], split)
    (tmp_path / "label.labels.txt").unlink()
    data = TfdsFolder(str(tmp_path))
    for part, label in ((data.train(), 1), (data.test(), 3)):
        assert part.classes == {"class": tuple("0123456")} and part[0].labels == {"class": label}


def test_what_a_tfds_folder_lacks_is_named(tmp_path):
    data = TfdsFolder(str(tmp_path))
    with pytest.raises(ValueError, match="no shards of train in .*-train.tfrecord-00000-of"):
        data.train()
    write_tfds(tmp_path, "array_record", [[example(0, encode(0))], [example(0, encode(0))]])
    path = tmp_path / "ucf101-train.array_record-00001-of-00002"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="00001-of-00002 cannot be read"):
        data.train()
    path.unlink()
    with pytest.raises(ValueError, match="1 of 2 shards of train are not in"):
        data.train()
    write_tfds(tmp_path, "tfrecord", [[b"\xff no example"]], split="test")
    with pytest.raises(
        ValueError, match="test.tfrecord-00000-of-00001/0 in .*not a tf.train.Example"
    ):
        data.test()
    with pytest.raises(ValueError, match="fps must be at least 0"):
        TfdsFolder(fps=-1.0)


def write_sequences(folder, **context):
    for number, frames in enumerate((9, 14)):
        images = [encode(frame, number) for frame in range(frames)]
        names = {key: values[number] for key, values in context.items()}
        data = sequence(images, video_filename=b"v.mp4", **names)
        write_tfrecords(folder / f"train_1-{number:05}-of-00002", data)
    (folder / "classes.txt").write_text("1 walk\n2 play_guitar\n")
    return str(folder / "classes.txt")


def test_sequence_examples_take_their_classes_from_a_file(tmp_path, monkeypatch):
    classes = write_sequences(
        tmp_path, clip_label_text=[b"play guitar", b"walk"], clip_label_index=[7, 9]
    )
    with monkeypatch.context() as patch:
        patch.setattr(tfrecord, "parse_sequence", None)  # frames are not read to list them
        source = SequenceExamples(str(tmp_path / "train_1@2"), "", classes, fps=10.0).train()
    assert source.classes == {"class": ("walk", "play_guitar")}
    assert [video.labels["class"] for video in source.videos] == [1, 0]
    assert source[1].id == "train_1-00001-of-00002/0"
    assert numbers_of(source[1], ((13, 2),)) == ([[13, 2]], {1})
    with source[0].media.open() as reader:
        assert (reader.num_frames, reader.fps) == (9, 10)
    classes = write_sequences(tmp_path, clip_label_index=[2, 1])
    source = SequenceExamples(str(tmp_path), str(tmp_path), classes).test()
    assert [video.labels["class"] for video in source.videos] == [1, 0]
    with pytest.raises(ValueError, match="such as 1, differently .*--config.data.classes="):
        SequenceExamples(str(tmp_path)).train()


def test_a_sequence_example_without_a_class_is_named(tmp_path):
    classes = write_sequences(tmp_path, clip_label_text=[b"walk", b"swim"])
    with pytest.raises(ValueError, match="train_1-00001-of-00002/0: .*no class 'swim'"):
        SequenceExamples(str(tmp_path), "", classes).train()
    write_sequences(tmp_path, clip_label_index=[1, 3])
    with pytest.raises(ValueError, match="train_1-00001-of-00002.* must be 1 to 2, got 3"):
        SequenceExamples(str(tmp_path), "", classes).train()
    write_sequences(tmp_path, clip_label_index=[b"walk", 1])
    with pytest.raises(ValueError, match="record 0: clip/label/index must be one int, got "):
        SequenceExamples(str(tmp_path), "", classes).train()


def test_tfrecords_that_are_cut_off_or_none_are_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecords(path, b"first", b"second one")
    data = path.read_bytes()
    assert [data[at : at + size] for at, size in tfrecord.index_tfrecords(path)] == [
        b"first",
        b"second one",
    ]
    for size, number in ((len(data) - 1, 1), (25, 1), (15, 0), (4, 0)):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=f"a.tfrecord, record {number}: .*truncated"):
            list(tfrecord.index_tfrecords(path))
    path.write_bytes(b"\x1f\x8b\x08" + os.urandom(300))
    with pytest.raises(ValueError, match="a.tfrecord, record 0: .*compressed"):
        list(tfrecord.index_tfrecords(path))


@pytest.mark.parametrize("length", [0, 1, 100, 20000])
@pytest.mark.parametrize("context_first", [True, False])
def test_a_context_of_any_length_is_read_alone(tmp_path, length, context_first):
    message = SequenceExample()
    if length:
        add(message.context, "k", b"x" * length)
    head, message = message.SerializeToString(), SequenceExample()
    message.feature_lists.feature_list.add(key="image/encoded")
    tail = message.SerializeToString()
    path = tmp_path / "a"
    data = head + tail if context_first else tail + head
    path.write_bytes(b"before" + data + b"behind")
    context = tfrecord.read_context(path, 6, len(data))
    assert context == ({"k": [b"x" * length]} if length else {})


def test_damage_shows_when_a_video_is_opened(tmp_path):
    images = [encode(frame) for frame in range(3)]
    images[1] = images[1][:200]
    write_tfds(tmp_path, "tfrecord", [[example(0, *images), example(1, encode(0))]])
    source = TfdsFolder(str(tmp_path)).train()
    with source[0].media.open() as reader:
        assert read_numbers(reader.read(np.array([[2]]), (64, 128)))[0] == 2
        with pytest.raises(VideoError, match="ucf101-train.tfrecord-00000-of-00001/0: "):
            reader.read(np.array([[1]]), (64, 128))
    path = pathlib.Path(source[1].media.path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(VideoError, match="/1: .* is truncated"), source[1].media.open():
        pass


def test_a_zip_of_images_is_a_video(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for frame in (2, 0, 1):
            archive.writestr(f"img_{frame + 1:05}.jpg", encode(frame, 5))
        archive.writestr("notes.txt", "no frame")
    media = ZippedFrames(str(tmp_path / "a.zip"))
    with pickle.loads(pickle.dumps(media)).open() as reader:
        assert (reader.num_frames, reader.fps) == (3, 0)
        clip = reader.read(np.array([[2, 0], [1, 1]]), (64, 128))
    np.testing.assert_array_equal(read_numbers(clip), [[[2, 0], [1, 1]], [[5, 5], [5, 5]]])
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_1.jpg", encode(0, 5, "BMP"))
    packed = bytearray((tmp_path / "damaged.zip").read_bytes())
    packed[60:76] = bytes(16)
    (tmp_path / "damaged.zip").write_bytes(packed)
    with ZippedFrames(str(tmp_path / "damaged.zip")).open() as reader:
        with pytest.raises(VideoError, match="damaged.zip: Error -3 while decompressing"):
            reader.read(np.array([[0]]), (64, 128))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("1.jpg", "no image")
    with ZippedFrames(str(tmp_path / "text.zip")).open() as reader:
        with pytest.raises(VideoError, match=r"text.zip: frame 0 is not an image"):
            reader.read(np.array([[0]]), (8, 8))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "none.zip").write_bytes(b"no zip file")
    for name, says in (("empty", "it has no frames"), ("none", "not a zip"), ("absent", "No such")):
        with pytest.raises(VideoError, match=f"{name}.zip: .*{says}"):
            with ZippedFrames(str(tmp_path / f"{name}.zip")).open():
                pass


@pytest.mark.parametrize("kind", [WebDataset, TfdsFolder, SequenceExamples])
def test_data_sets_in_shards_can_be_listed(kind):
    assert isinstance(kind(), Listing)
    for get in (kind().pretrain, kind().test):
        with pytest.raises(ValueError, match="--config.data."):
            get()


def pack_tar(path, *members):
    """Write (name, data) members, whose names may repeat."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    "members",
    [
        ("walk.000.mp4", "walk.001.mp4", "walk.000.cls", "walk.001.cls"),
        ("a/b.mp4", "a/b.mp4", "a/b.cls", "a/b.cls"),
        ("c.mp4", "c.front.MKV", "c.cls"),
        ("d.0.cls", "d.1.cls", "d.mp4"),
        ("e.json", "e.meta.json", "e.mp4"),
    ],
)
def test_two_members_of_a_key_are_refused(tmp_path, members):
    contents = {".cls": b"1", ".json": b'{"label": 1}'}
    pack_tar(
        tmp_path / "x.tar",
        *((name, contents.get(os.path.splitext(name)[1], b"")) for name in members),
    )
    key, (first, second, *_) = members[0].partition(".")[0], members
    says = f"x.tar, at {key}: the members {first} and {second} have the same key"
    with pytest.raises(ValueError, match=says):
        WebDataset(str(tmp_path)).train()


def test_json_without_a_label_may_accompany_a_class(tmp_path, clips):
    write_tar(
        tmp_path / "x.tar",
        **{"a.mp4": clips[0], "a.json": '{"caption": "dog"}', "a.meta.json": '{"label": 3}'},
        **{"__MACOSX/._a.mp4": b"x", "._a.mp4": b"x"},
    )
    (video,) = WebDataset(str(tmp_path)).train().videos
    assert (video.id, video.labels) == ("x.tar/a", {"class": 3})


def test_shards_of_equal_names_have_distinct_ids(tmp_path):
    for number in (0, 1):
        (tmp_path / f"p{number}").mkdir()
        write_tar(tmp_path / f"p{number}" / "s.tar", **{"a.mp4": b"1", "a.cls": number})
        record = sequence([encode(1)], clip_label_index=number)
        write_tfrecords(tmp_path / f"p{number}" / "s.tfrecord", record)
    source = WebDataset(str(tmp_path / "p{0..1}/s.tar")).train()
    assert [video.id for video in source.videos] == ["p0/s.tar/a", "p1/s.tar/a"]
    (tmp_path / "classes.txt").write_text("run\nwalk\n")
    names = str(tmp_path / "classes.txt")
    source = SequenceExamples(str(tmp_path / "p{0..1}/s.tfrecord"), classes=names).train()
    assert [video.id for video in source.videos] == ["p0/s.tfrecord/0", "p1/s.tfrecord/0"]


@pytest.mark.parametrize(("module", "end"), [("gzip", "gz"), ("bz2", "bz2"), ("lzma", "xz")])
def test_a_compressed_tar_is_said_to_be_one(tmp_path, module, end):
    write_tar(tmp_path / "x.tar", **{"a.mp4": b"1", "a.cls": 0})
    data = importlib.import_module(module).compress((tmp_path / "x.tar").read_bytes())
    (tmp_path / f"x.tar.{end}").write_bytes(data)
    assert len(WebDataset(str(tmp_path)).train()) == 1  # the unpacked one
    with pytest.raises(ValueError, match=rf"x.tar.{end} is compressed by \w+: unpack it"):
        WebDataset(str(tmp_path / f"x.tar.{end}")).train()
    (tmp_path / "x.tar").rename(tmp_path / "y.tar")
    with pytest.raises(ValueError, match=f"1 shards .* are compressed, such as x.tar.{end}"):
        WebDataset(str(tmp_path)).train()
    with pytest.raises(ValueError, match="are compressed, such as x.tgz"):
        (tmp_path / f"x.tar.{end}").rename(tmp_path / "x.tgz")
        WebDataset(str(tmp_path)).train()


@pytest.mark.parametrize("label", ['{"label": [3]}', '{"label": 1.0}', '{"cls": true}'])
def test_a_label_that_is_no_class_is_shown(tmp_path, label):
    write_tar(tmp_path / "x.tar", **{"a.mp4": b"1", "a.json": label})
    with pytest.raises(ValueError, match=r"x.tar.* an integer or a name, got (\[3\]|1.0|True)$"):
        WebDataset(str(tmp_path)).train()


def classes_of(source):
    return [source.classes["class"][video.labels["class"]] for video in source.videos]


def test_labels_of_tars_may_be_names(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        **{"x.mp4": b"1", "x.cls": "play guitar\n", "y.mp4": b"1"},
        **{"y.json": '{"label": "a_walk"}'},
    )
    write_tar(tmp_path / "b.tar", **{"z.mp4": b"1", "z.cls": "run"})
    data = WebDataset(str(tmp_path / "a.tar"), str(tmp_path / "b.tar"))
    assert data.train().classes == {"class": ("a walk", "play guitar", "run")}
    assert classes_of(data.train()) == ["play guitar", "a walk"]
    assert classes_of(data.test()) == ["run"]
    (tmp_path / "names.txt").write_text("1 run\n2 play_guitar\n3 a walk\n")
    named = dataclasses.replace(data, classes=str(tmp_path / "names.txt"))
    assert [video.labels["class"] for video in named.train().videos] == [1, 2]
    (tmp_path / "names.txt").write_text("run\na walk\n")
    with pytest.raises(ValueError, match="a.tar/x: .*names.txt has no class 'play guitar'"):
        named.train()


def test_names_in_tars_may_have_any_encoding(tmp_path):
    members = {"a.mp4": b"1", "a.cls": b"caf\xe8", "b.mp4": b"1", "b.cls": b"caf\xe9"}
    write_tar(tmp_path / "x.tar", **members)
    assert classes_of(WebDataset(str(tmp_path)).train()) == [r"caf\xe8", r"caf\xe9"]


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("nan", "'nan' stands for a missing value"),
        (1_700_000_000, "must be 0 to 999999, got 1700000000"),
    ],
)
def test_a_label_that_no_class_has_is_refused(tmp_path, label, says):
    write_tar(tmp_path / "x.tar", **{"a.mp4": b"1", "a.cls": label})
    with pytest.raises(ValueError, match=f"x.tar/a: .*{says}"):
        WebDataset(str(tmp_path)).train()


def assert_unlabelled(source, count):
    assert source.classes == {} and len(source) == count
    assert all(source[number].labels == {} for number in range(count))


@pytest.mark.parametrize("label", [{}, {"a.cls": "-1", "b.json": "{}", "c.json": '{"label": -1}'}])
def test_tars_without_labels_serve_for_pretraining(tmp_path, label):
    write_tar(tmp_path / "x.tar", **{f"{key}.mp4": b"1" for key in "abc"}, **label)
    data = WebDataset(str(tmp_path / "x.tar"))
    assert_unlabelled(data.pretrain(), 3)
    with pytest.raises(MissingPart, match="test_shards must be a folder"):
        data.test()
    write_tar(tmp_path / "y.tar", **{"d.mp4": b"1", "d.cls": "1"})
    data = WebDataset(str(tmp_path / "x.tar"), str(tmp_path / "y.tar"))
    assert_unlabelled(data.pretrain(), 3)
    assert classes_of(data.test()) == ["1"]


def test_records_without_labels_serve_for_pretraining(tmp_path):
    def unlabelled(*values):
        message = Example()
        add(message.features, "video", *values)
        return message.SerializeToString()

    write_tfds(tmp_path / "tfds", "tfrecord", [[unlabelled(encode(0)), unlabelled(encode(1))]])
    data = TfdsFolder(str(tmp_path / "tfds"))
    for _ in range(2):  # the second time from the cache
        assert_unlabelled(data.pretrain(), 2)
    with pytest.raises(MissingPart, match="no shards of test in .*, but of train"):
        data.test()
    with pytest.raises(ValueError, match="no shards of dev") as error:
        TfdsFolder(str(tmp_path / "tfds"), test_split="dev").test()
    assert not isinstance(error.value, MissingPart)  # somebody asked for it
    write_tfds(tmp_path / "tfds", "tfrecord", [[unlabelled(encode(0)), example(1, encode(1))]])
    with pytest.raises(ValueError, match="/0 has no label, but others have"):
        data.pretrain()
    write_sequences(tmp_path)
    data = SequenceExamples(str(tmp_path / "train_1@2"))
    assert_unlabelled(data.pretrain(), 2)
    with pytest.raises(MissingPart):
        data.test()


def test_names_in_records_are_classes(tmp_path):
    records = [example(label, encode(0)) for label in (b"walk", b"run")]
    write_tfds(tmp_path / "tfds", "tfrecord", [records])
    (tmp_path / "tfds/label.labels.txt").unlink()
    assert classes_of(TfdsFolder(str(tmp_path / "tfds")).train()) == ["walk", "run"]
    write_sequences(tmp_path, clip_label_text=[b"play guitar", b"walk"])
    source = SequenceExamples(str(tmp_path / "train_1@2")).train()
    assert source.classes == {"class": ("play guitar", "walk")}
    assert classes_of(source) == ["play guitar", "walk"]


def write_frames(path, *names):
    """Write a zip whose image `i` is frame `i`."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, encode(number, kind="PNG"))
    return ZippedFrames(str(path))


@pytest.mark.parametrize(
    "names",
    [
        [f"frame{i}.png" for i in range(12)],
        [f"v2/clip {i}_x.jpg" for i in range(95, 107)],
        [f"{i // 5}/{i}.png" for i in range(12)],
        [f"IMG_{i:04}.PNG" for i in range(12)],
        [f"{i:03}_{1.5 * i}.png" for i in range(12)],
        [f"{i}.{'jpg' if i % 2 else 'png'}" for i in range(12)],
        [f"{i}.webp" for i in range(12)],
        [f"{i / 30}.png" for i in range(12)],
        [f"t{i / 25}s.png" for i in range(12)],
        [f"shot1.{i:02}.png" for i in range(95, 107)],
    ],
)
def test_zipped_frames_are_in_the_order_of_their_numbers(tmp_path, names):
    media = write_frames(tmp_path / "x.zip", *names)
    with media.open() as reader:
        frames = read_numbers(reader.read(np.arange(12)[None], (64, 128)))[0]
        assert reader.num_frames == 12 and frames.tolist() == [list(range(12))]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_images_are_upright(tmp_path, orientation):
    image = Image.open(io.BytesIO(encode(5, 3, "PNG")))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = image.rotate({1: 0, 3: 180, 6: 90}[orientation], expand=True)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        turned.save(tmp_path / "x.png", exif=exif)
        archive.write(tmp_path / "x.png", "1.png")
    with ZippedFrames(str(tmp_path / "x.zip")).open() as reader:
        clip = reader.read(np.array([[0]]), (64, 128))
    np.testing.assert_array_equal(clip[0, 0], np.asarray(image))


def test_images_of_16_bits_keep_their_shades(tmp_path):
    shades = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number, pixels in enumerate((shades, shades.astype(np.float32))):
            Image.fromarray(pixels).save(tmp_path / "x.tif")
            archive.write(tmp_path / "x.tif", f"{number}.tif")
    with ZippedFrames(str(tmp_path / "x.zip")).open() as reader:
        clip = reader.read(np.array([[0]]), (64, 64))
        np.testing.assert_array_equal(clip[0, 0], np.stack([shades // 256] * 3, -1))
        with pytest.raises(VideoError, match="frame 1 has pixels of 32 bits"):
            reader.read(np.array([[1]]), (64, 64))


def test_a_zip_has_more_than_frames(tmp_path):
    names = [f"clip/{i}.png" for i in range(12)]
    junk = ["thumbnail.png", "clip/cover.jpg", "__MACOSX/clip/._0.png", "clip/._1.png", ".x/2.png"]
    media = write_frames(tmp_path / "x.zip", *names, *junk, "clip/notes1.txt")
    with media.open() as reader:
        frames = read_numbers(reader.read(np.arange(12)[None], (64, 128)))[0]
        assert reader.num_frames == 12 and frames.tolist() == [list(range(12))]
    with write_frames(tmp_path / "one.zip", "only.png").open() as reader:
        assert reader.num_frames == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("img_1.png", "img_2.png", "flow_x_1.png"), "got 2, such as flow_x_1.png and img_1.png"),
        (("rgb/1.png", "flow/1.png"), "got 2, such as flow/1.png and rgb/1.png"),
        (("cam1_001.png", "cam1_002.png", "cam2_001.png", "cam2_002.png"), "have the same number"),
        (("1.png", "01.jpg"), "have the same number"),
        (("a.png", "b.png"), "got 2, such as a.png and b.png"),
    ],
)
def test_several_series_in_a_zip_are_refused(tmp_path, names, says):
    media = write_frames(tmp_path / "x.zip", *names)
    with pytest.raises(VideoError, match=f"x.zip: the images must be one series.*{says}"):
        with media.open():
            pass
