import pathlib
import zipfile

import fsspec
import numpy as np
import pytest

from tests.buckets import Bucket, open_bucket
from tests.data.datasets import test_record_shards as shards
from tests.data.video.test_video_decoder import write_clip
from vrl_jax.data import remote_paths
from vrl_jax.data.datasets import indexed, transcoded
from vrl_jax.data.datasets.benchmarks import Kinetics400
from vrl_jax.data.datasets.sequence_examples import SequenceExamples
from vrl_jax.data.datasets.table_shards import HuggingFaceFolder, Parquet
from vrl_jax.data.datasets.tar_shards import WebDataset
from vrl_jax.data.datasets.tfds_folders import TfdsFolder
from vrl_jax.data.datasets.transcoded import Prepared
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile
from vrl_jax.data.tools import video_index
from vrl_jax.data.video.media_containers import ByteRange
from vrl_jax.data.video_dataset import VideoError

TABLES = ((Parquet, "train_shards"), (HuggingFaceFolder, "root"))
WANTED = np.array([[3, 11], [0, 3]])


@pytest.fixture
def bucket():
    return open_bucket()


def upload(bucket, folder):
    bucket.put(f"{folder}/", "gs://bucket/set/", recursive=True)
    return "gs://bucket/set"


def same(remote, local):
    """Check that a remote and a local data set have the same videos."""
    assert remote.classes == local.classes and len(remote) == len(local) > 0
    for number in range(len(remote)):
        one, other = remote[number], local[number]
        assert (one.id, one.labels) == (other.id, other.labels)
        assert one.media.path.startswith("gs://bucket/set/")
        with one.media.open() as reader, other.media.open() as expected:
            assert (reader.num_frames, reader.fps) == (expected.num_frames, expected.fps)
            clips = reader.read(WANTED, (64, 128))
            np.testing.assert_array_equal(clips, expected.read(WANTED, (64, 128)))


@pytest.fixture
def folders(tmp_path):
    for number, name in enumerate(["train/b_c", "train/a", "val/a"]):
        (tmp_path / name).mkdir(parents=True)
        write_clip(tmp_path / name / f"{number} x.mp4", frames=12, video=number)
    with zipfile.ZipFile(tmp_path / "val" / "a" / "z.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"{number:03}.jpg", shards.encode(number, 5))
    return tmp_path


def test_folders_read_as_they_do_from_disk(bucket, folders):
    root = upload(bucket, folders)
    for part in ("train", "test"):
        remote, local = (getattr(ClassFolders(str(at)), part)() for at in (root, folders))
        same(remote, local)


def test_lists_read_as_they_do_from_disk(bucket, folders):
    text = "\ufefftrain/a/1 x 1\r\ntrain/b_c/0 x.avi 0\r\n"
    (folders / "train.txt").write_bytes(text.encode())
    root = upload(bucket, folders)
    remote, local = (ListFile(str(at), f"{at}/train.txt").train() for at in (root, folders))
    same(remote, local)
    mixed = ListFile(root, str(folders / "train.txt")).train()  # a local list of remote videos
    same(mixed, local)
    (folders / "k.csv").write_text('\ufefflabel,youtube_id,time_start,time_end\n"b c",x,1,11\n')
    bucket.put(str(folders / "k.csv"), f"{root}/k.csv")
    listed = Kinetics400(root, f"{root}/k.csv", f"{root}/k.csv").list_part("train")
    assert [video.id for video in listed.videos] == ["x_000001_000011"]


def test_an_absent_video_is_named(bucket, folders):
    root = upload(bucket, folders)
    video = ClassFolders(root).train()[0]
    bucket.rm(f"{root}/train/a/1 x.mp4")
    with pytest.raises(VideoError, match="gs://bucket/set/train/a/1 x.mp4: .*cannot be read"):
        with video.media.open():
            pass
    (folders / "train.txt").write_text("train/a/1 x.mp4 0\ntrain/c/no.mp4 0\n")
    with pytest.raises(ValueError, match="2 of 2 listed videos are missing: gs://bucket/set/train"):
        ListFile(root, str(folders / "train.txt")).train()


def test_shards_are_read_by_their_bytes(bucket, tmp_path):
    clips = [
        pathlib.Path(write_clip(tmp_path / f"{n}.mp4", frames=12, video=n)).read_bytes()
        for n in range(2)
    ]
    for name in ("tars", "tfds", "examples"):
        (tmp_path / name).mkdir()
    shards.write_tar(tmp_path / "tars/s-0.tar", **{"x.mp4": clips[0], "x.cls": 1})
    shards.write_tar(tmp_path / "tars/s-1.tar", **{"y.json": '{"cls": 0}', "y.mp4": clips[1]})
    record = [shards.example(n, clip) for n, clip in enumerate(clips)]
    shards.write_tfrecords(tmp_path / "tfds/x-train.tfrecord-00000-of-00001", *record)
    (tmp_path / "tfds/label.labels.txt").write_text("run\nwalk\n")
    images = [shards.encode(number) for number in range(12)]
    record = [shards.sequence(images, clip_label_index=n) for n in (1, 0)]
    shards.write_tfrecords(tmp_path / "examples/x-00000-of-00001", *record)
    (tmp_path / "classes.txt").write_text("run\nwalk\n")
    root = upload(bucket, tmp_path)
    for build in (
        lambda at: WebDataset(f"{at}/tars"),
        lambda at: WebDataset(f"{at}/tars/s-{{0..1}}.tar"),
        lambda at: TfdsFolder(f"{at}/tfds"),
        lambda at: SequenceExamples(f"{at}/examples", classes=f"{at}/classes.txt"),
    ):
        same(build(root).train(), build(tmp_path).train())
    assert bucket.exists(f"{root}/tfds/train-label.vrl_jax.json")
    same(TfdsFolder(f"{root}/tfds").train(), TfdsFolder(str(tmp_path / "tfds")).train())
    with pytest.raises(ValueError, match="1 of 3 shards of train_shards are missing: gs://.*s-2"):
        WebDataset(f"{root}/tars/s-{{0..2}}.tar").train()


def test_parquet_is_read_as_it_is_from_disk(bucket, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [f"{number}.mp4" for number in range(3)]
    data = [
        pathlib.Path(write_clip(tmp_path / name, frames=12, video=number)).read_bytes()
        for number, name in enumerate(names)
    ]
    cells = {
        "bytes": data,
        "structs": [{"bytes": data[0], "path": "x"}, {"path": "1.mp4"}, {"bytes": data[2]}],
        "paths": names,
    }
    for name, column in cells.items():
        (tmp_path / name).mkdir()
        for video, content in zip(names, data, strict=True):
            (tmp_path / name / video).write_bytes(content)
        table = pa.table({"video": column, "label": ["walk", "run", "walk"]})
        parquet.write_table(
            table, tmp_path / name / "train-00000-of-00001.parquet", row_group_size=2
        )
    (tmp_path / "arrow").mkdir()
    with pa.ipc.new_stream(tmp_path / "arrow" / "train-0.arrow", table.schema) as writer:
        writer.write_table(table)
    root = upload(bucket, tmp_path)
    for name in cells:
        for kind, field in TABLES:
            remote, local = (kind(**{field: f"{at}/{name}"}).train() for at in (root, tmp_path))
            same(remote, local)
    for kind, field in TABLES:
        with pytest.raises(ValueError, match="Arrow files must be on a local disk.*arrow /data"):
            kind(**{field: f"{root}/arrow"}).train()
    source = Parquet(train_shards=f"{root}/bytes").train()

    def refuse(*_, **__):
        raise Exception("Forbidden")  # clients have errors of their own kinds

    monkeypatch.setattr(Bucket, "_open", refuse)
    with pytest.raises(VideoError, match="parquet/0: Forbidden"), source[0].media.open():
        pass
    with pytest.raises(ValueError, match="bytes/.*parquet cannot be read: Forbidden"):
        Parquet(train_shards=f"{root}/bytes").train()


def test_a_stretch_past_the_end_is_named(bucket):
    bucket.pipe("gs://bucket/x", b"0123456789")
    assert ByteRange("gs://bucket/x", 3, 3).read() == b"345"
    with pytest.raises(OSError, match="gs://bucket/x is truncated: must have 9 bytes at 6"):
        ByteRange("gs://bucket/x", 6, 9).read()


def test_an_index_may_name_videos_that_are_elsewhere(bucket, folders, tmp_path):
    (folders / "val" / "a" / "z.zip").unlink()  # no video file
    data = ClassFolders(str(folders))
    out = tmp_path / "index"
    video_index.index_videos(data, out)
    root = upload(bucket, folders)
    same(indexed.Indexed(str(out), root).train(), indexed.Indexed(str(out)).train())
    same(indexed.Indexed(f"{root}/index", root).train(), data.train())
    with pytest.raises(ValueError, match="index a local copy of the videos"):
        video_index.index_videos(ClassFolders(root), tmp_path / "other")


def test_what_cannot_be_read_says_what_can(bucket, tmp_path, monkeypatch):
    for name in (transcoded.DATASET, transcoded.VIDEOS, "x-train.array_record-00000-of-00001"):
        bucket.pipe(f"gs://bucket/set/{name}", b"{}")
    for kind in (Prepared, TfdsFolder):
        with pytest.raises(ValueError, match="gcloud storage cp -r gs://bucket/set /data"):
            kind("gs://bucket/set").train()
    with pytest.raises(ValueError, match="root must be a folder, got 'gs://bucket/none'"):
        ClassFolders("gs://bucket/none").train()
    with pytest.raises(ValueError, match="ftp://x must be a local path or begin with one of"):
        ClassFolders("ftp://x").train()
    monkeypatch.setattr(fsspec, "get_filesystem_class", raise_import_error)
    with pytest.raises(ValueError, match=r"install gcsfs.*pip install 'vrl-jax\[gcs\]'"):
        ClassFolders("gs://bucket/set").train()


def test_a_store_that_refuses_says_why(bucket, folders, monkeypatch):
    root = upload(bucket, folders)

    def refuse(self, path, **_):
        raise RuntimeError(f"Forbidden: {path}")

    monkeypatch.setattr(Bucket, "info", refuse)
    (folders / "train.txt").write_text("train/a/1 x.mp4 0\n")
    for data in (
        ClassFolders(root),
        ListFile(str(folders), f"{root}/train.txt"),
        WebDataset(f"{root}/train"),
    ):
        with pytest.raises(ValueError, match=f"^{root}.* cannot be read: Forbidden: /bucket/set"):
            data.train()
    monkeypatch.undo()
    monkeypatch.setattr(Bucket, "ls", refuse)
    with pytest.raises(ValueError, match=f"^{root}/train/a cannot be read: Forbidden"):
        ListFile(root, str(folders / "train.txt")).train()


def test_an_error_without_words_is_named(bucket, monkeypatch):
    def refuse(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(Bucket, "cat_file", refuse)
    with pytest.raises(OSError, match="gs://bucket/x cannot be read: TimeoutError"):
        remote_paths.read_remote("gs://bucket/x")


def raise_import_error(scheme):
    raise ImportError("install gcsfs")
