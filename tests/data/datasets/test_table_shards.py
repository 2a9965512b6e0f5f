"""Videos in Parquet and Arrow files."""

import json
import pathlib
import pickle

import numpy as np
import pytest

from tests.data.video.test_video_decoder import read_numbers, write_clip
from vrl_jax.data.data_loader import Loader, failed_videos, train_batches
from vrl_jax.data.datasets import table_shards
from vrl_jax.data.datasets.table_shards import HuggingFaceFolder, Parquet
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Listing, MissingPart, VideoError, check_disjoint

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
VIDEOS = 7


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Video files of 12 frames that tell their number."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        pathlib.Path(write_clip(folder / f"{video}.mp4", frames=12, video=video)).read_bytes()
        for video in range(VIDEOS)
    ]


def make_table(numbers, clips, names=(), kind=CELL, **labels):
    """Return a table of videos; `names` are those of the classes in column `label`."""
    cells = {
        CELL: [{"bytes": clips[n], "path": f"{n}.mp4"} for n in numbers],
        pa.binary(): [clips[n] for n in numbers],
        pa.string(): [f"videos/{n}.mp4" for n in numbers],
    }[kind]
    table = pa.table({"video": pa.array(cells, kind), **labels})
    features = {"label": {"names": names, "_type": "ClassLabel"}, "video": {"_type": "Video"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    return table.replace_schema_metadata(metadata)


def write_parquet(path, table, group=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=group)


def write_arrow(path, table, kind="stream"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with getattr(pa.ipc, f"new_{kind}")(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def video_number(video):
    """Return the number that a video shows, after a trip to a worker."""
    with pickle.loads(pickle.dumps(video.media)).open() as reader:
        frames, videos = read_numbers(reader.read(np.array([[3, 11]]), (64, 128)))
    assert frames.tolist() == [[3, 11]]
    return int(videos.flat[0])


def labels_of(source, label="class"):
    return [source.classes[label][video.labels[label]] for video in source.videos]


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory):
    """A folder as on the hub: three shards to train on, and one to test on."""
    root = tmp_path_factory.mktemp("hub")
    for shard, numbers in enumerate(([0, 1, 2], [3, 4], [5])):
        table = make_table(numbers, clips, ["walk", "run"], label=[n % 2 for n in numbers])
        write_parquet(root / "data" / f"train-{shard:05}-of-00003.parquet", table)
    table = make_table([6], clips, ["walk", "run"], label=[0])
    write_parquet(root / "data" / "validation-00000-of-00001.parquet", table)
    return root


def test_a_folder_of_the_hub_is_a_data_set(folder):
    data = HuggingFaceFolder(root=str(folder), test_split="validation")
    train, test = data.train(), data.test()
    assert train.classes == test.classes == {"class": ("walk", "run")}
    assert labels_of(train) == ["walk", "run"] * 3 and labels_of(test) == ["walk"]
    assert [video.id for video in train.videos][2:4] == [
        "train-00000-of-00003.parquet/2",
        "train-00001-of-00003.parquet/0",
    ]
    assert [video_number(video) for video in (*train.videos, *test.videos)] == [*range(VIDEOS)]
    check_disjoint(train, test)
    with pytest.raises(ValueError, match="6 of 6 test videos are training videos"):
        check_disjoint(train, train)
    with pytest.raises(MissingPart, match="no split 'test', but train, validation: pass"):
        HuggingFaceFolder(root=str(folder)).test()
    pattern = str(folder / "data/train-{00000..00001}-of-00003.parquet")
    assert HuggingFaceFolder(root=str(folder)).pretrain() == train
    assert Parquet(train_shards=pattern).train().videos == train.videos[:5]
    (other,) = (
        Parquet(test_shards=str(folder / "data/validation-00000-of-00001.parquet")).test().videos
    )
    assert other == test[0]


def test_batches_from_parquet_resume_and_are_shared_by_hosts(folder):
    source = HuggingFaceFolder(root=str(folder)).pretrain()

    def batches(count, **options):
        rows = train_batches(source, Sampling(2, 1, 1), (16, 32), batch=4, seed=5, **options)
        try:
            return [next(rows) for _ in range(count)]
        finally:
            rows.close()

    whole = batches(5)
    for batch in whole:
        assert (read_numbers(batch["clips"])[1] == batch["index"][:, None, None]).all()
    resumed = batches(2, start=3, loader=Loader(workers=1))
    halves = [batches(5, host=host, hosts=2) for host in range(2)]
    for key in ("clips", "index", "failures"):
        for batch, again in zip(whole[3:], resumed, strict=True):
            np.testing.assert_array_equal(batch[key], again[key])
        for batch, *parts in zip(whole, *halves, strict=True):
            np.testing.assert_array_equal(batch[key], np.concatenate([p[key] for p in parts]))


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_folder_of_save_to_disk_is_a_data_set(clips, tmp_path, kind):
    table = make_table(range(5), clips, ["walk", "run"], label=[1, 0, 1, 0, 1])
    write_arrow(tmp_path / "train" / "data-00000-of-00002.arrow", table[:3], kind)
    write_arrow(tmp_path / "train" / "data-00001-of-00002.arrow", table[3:], kind)
    source = HuggingFaceFolder(root=str(tmp_path)).train()
    assert labels_of(source) == ["run", "walk", "run", "walk", "run"]
    assert [video_number(video) for video in source.videos] == [*range(5)]
    (tmp_path / "train" / "data-00000-of-00002.arrow").unlink()
    with pytest.raises(ValueError, match="1 of 2 shards like data-00001-of-00002.arrow are not in"):
        HuggingFaceFolder(root=str(tmp_path)).train()
    write_arrow(tmp_path / "one" / "data-00000-of-00001.arrow", table, kind)
    (tmp_path / "one" / "state.json").write_text("{}")
    assert len(HuggingFaceFolder(root=str(tmp_path / "one")).pretrain()) == 5


def test_videos_may_be_bytes_or_paths(clips, tmp_path):
    write_parquet(tmp_path / "bytes.parquet", make_table([3, 1], clips, kind=pa.binary()))
    write_parquet(tmp_path / "paths.parquet", make_table([2, 4], clips, kind=pa.string()))
    (tmp_path / "videos").mkdir()
    cells = pa.array([{"bytes": None, "path": "videos/2.mp4"}, {"bytes": None, "path": None}], CELL)
    write_parquet(tmp_path / "structs.parquet", pa.table({"video": cells}))
    paths = Parquet(train_shards=str(tmp_path / "paths.parquet"))
    with pytest.raises(ValueError, match="2 of 2 listed videos are missing: .*videos/2.mp4"):
        paths.train()
    for number in (2, 4):
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(clips[number])
    for name, numbers in (("bytes", [3, 1]), ("paths", [2, 4]), ("structs", [2])):
        source = Parquet(train_shards=str(tmp_path / f"{name}.parquet")).pretrain()
        assert source.classes == {} and source[0].labels == {}
        assert [video_number(video) for video in source.videos[: len(numbers)]] == numbers
    with pytest.raises(VideoError, match="structs.parquet/1: .* has neither bytes nor path"):
        with source[1].media.open():
            pass


def test_label_columns_are_numbers_or_names(clips, tmp_path):
    table = make_table([0, 1, 2], clips, verb=["open", "shut_it", "open"], person=[4, 0, 2])
    write_parquet(tmp_path / "train.parquet", table)
    data = Parquet(train_shards=str(tmp_path / "train.parquet"), label="verb,person")
    source = data.train()
    assert source.classes == {"class": ("open", "shut it"), "person": tuple("01234")}
    assert labels_of(source) == ["open", "shut it", "open"]
    assert labels_of(source, "person") == ["4", "0", "2"]
    (tmp_path / "names.txt").write_text("shut it\nopen\n")
    named = Parquet(
        train_shards=str(tmp_path / "train.parquet"),
        label="verb",
        classes=str(tmp_path / "names.txt"),
    )
    assert [video.labels for video in named.train().videos] == [{"class": n} for n in (1, 0, 1)]
    with pytest.raises(ValueError, match="no column 'noun', but video, verb, person: pass"):
        Parquet(train_shards=str(tmp_path / "train.parquet"), label="noun").train()
    with pytest.raises(ValueError, match="no column 'clip', but video, verb, person: pass"):
        Parquet(train_shards=str(tmp_path / "train.parquet"), video="clip").train()
    with pytest.raises(ValueError, match="'person' must be bytes, a struct .* got int64"):
        Parquet(train_shards=str(tmp_path / "train.parquet"), video="person").train()
    table = make_table([0, 1], clips, label=[1, -1])
    write_parquet(tmp_path / "part.parquet", table)
    with pytest.raises(ValueError, match="row part.parquet/1 has no label, but others have"):
        Parquet(train_shards=str(tmp_path / "part.parquet")).train()
    write_parquet(tmp_path / "part.parquet", make_table([0], clips, label=[1.5]))
    with pytest.raises(ValueError, match="label must be numbers or names, got 1.5"):
        Parquet(train_shards=str(tmp_path / "part.parquet")).train()


def test_damage_is_named(clips, tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="a.parquet cannot be read: "):
        Parquet(train_shards=str(path)).train()
    monkeypatch.setattr(table_shards, "LARGE_GROUP", 1000)
    path = tmp_path / "b.parquet"
    write_parquet(path, make_table([0, 1, 2], clips))
    source = Parquet(train_shards=str(path)).pretrain()
    assert "write it again with row_group_size=10" in capsys.readouterr().err
    data = path.read_bytes()
    labelled = tmp_path / "c.parquet"
    write_parquet(labelled, make_table([0, 1, 2], clips, label=["a", "b", "c"]))
    at = parquet.read_metadata(labelled).row_group(0).column(2).dictionary_page_offset
    content = labelled.read_bytes()
    labelled.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
    with pytest.raises(ValueError, match="c.parquet cannot be read: ") as error:
        Parquet(train_shards=str(labelled)).train()
    assert "\n" not in str(error.value)
    start = parquet.read_metadata(path).row_group(0).column(0).dictionary_page_offset
    path.write_bytes(data[:start] + bytes(200) + data[start + 200 :])
    with pytest.raises(VideoError, match="b.parquet/0: "), source[0].media.open():
        pass
    assert video_number(source[2]) == 2
    path.unlink()
    rows = train_batches(source, Sampling(2, 1, 1), (16, 16), batch=1, seed=0)
    with pytest.raises(VideoError, match="10 videos in a row cannot be read: b.parquet/"):
        failed_videos(next(rows))


def test_cells_without_content_are_unreadable(tmp_path):
    for kind, cell in ((CELL, {"bytes": b"", "path": None}), (pa.binary(), b""), (CELL, None)):
        table = pa.table({"video": pa.array([cell], kind)})
        write_parquet(tmp_path / "a.parquet", table)
        source = Parquet(train_shards=str(tmp_path)).pretrain()
        with pytest.raises(VideoError, match="has neither bytes nor path"), source[0].media.open():
            pass


@pytest.mark.parametrize("features", ["null", "[1]", '{"label": {"_type": "ClassLabel"}}'])
def test_damaged_features_are_named(clips, tmp_path, features):
    table = make_table([0], clips, label=[0]).replace_schema_metadata(
        {"huggingface": '{"info": {"features": ' + features + "}}"}
    )
    write_parquet(tmp_path / "a.parquet", table)
    with pytest.raises(ValueError, match="a.parquet: its metadata of Hugging Face datasets is"):
        Parquet(train_shards=str(tmp_path)).train()


def test_caches_of_map_are_no_shards(clips, tmp_path):
    for folder in ("train", "."):
        root = tmp_path / "dict" if folder == "train" else tmp_path / "single"
        for name in ("data-00000-of-00001", "cache-0123456789abcdef"):
            write_arrow(root / folder / f"{name}.arrow", make_table([0, 1], clips, label=[0, 1]))
        (root / folder / "state.json").write_text("{}")
        assert len(HuggingFaceFolder(root=str(root)).train()) == 2
        assert len(Parquet(train_shards=str(root / folder)).train()) == 2


def test_no_label_replaces_the_first(clips, tmp_path):
    columns = {"verb": ["run", "walk"], "class": ["a", "a"]}
    write_parquet(tmp_path / "a.parquet", make_table([0, 1], clips, **columns))
    with pytest.raises(ValueError, match="the column 'class' first, got 'verb,class'"):
        Parquet(train_shards=str(tmp_path), label="verb,class").train()
    source = Parquet(train_shards=str(tmp_path), label="class,verb").train()
    assert labels_of(source) == ["a", "a"] and labels_of(source, "verb") == ["run", "walk"]


@pytest.mark.parametrize("kind", [Parquet, HuggingFaceFolder])
def test_they_can_be_listed(kind):
    assert isinstance(kind(), Listing)
    for get in (kind().pretrain, kind().test):
        with pytest.raises(ValueError, match="--config.data."):
            get()
