"""What is read from folders of TensorFlow Datasets is what that library reads from them.

The library builds the data sets. Tests that need it are skipped where the extra `tfds` is missing.
"""

import io
import multiprocessing
import pathlib
import sys

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.video.test_video_decoder import write_clip
from vrl_jax.data.datasets.dataset_lookup import build_dataset
from vrl_jax.data.datasets.tfds_folders import Tfds, TfdsFolder
from vrl_jax.data.video_dataset import Listing

HEIGHT, WIDTH, VIDEOS = 16, 20, 5
FORMATS = ("array_record", "tfrecord")
# name -> folder, feature with the video, feature with the label, number of classes
SETS = {
    "images": ("images/1.0.0", "video", "label", 3),
    "nested": ("nested/1.0.0", "clip/file", "clip/label", 3),
    "numbered": ("numbered/1.0.0", "clip", "number", 9),
    "ucf101/ucf101_1:2.0.0": ("ucf101/ucf101_1/2.0.0", "video", "label", 101),
}
CLASSES = ["walk", "run fast", "2 jump"]


@pytest.fixture(scope="module")
def tfds():
    """The library; it and TensorFlow take seconds to import, so only once it is needed."""
    pytest.importorskip("tensorflow")
    return pytest.importorskip("tensorflow_datasets")


def draw_frames(video, size=VIDEOS):
    """Noise; the first video has one frame, the next one two, and so on."""
    return np.random.default_rng(video).integers(
        0, 256, (1 + video % size, HEIGHT, WIDTH, 3), np.uint8
    )


@pytest.fixture(scope="module")
def root(tfds, tmp_path_factory):
    """A folder per format with all data sets: two splits of five videos in two shards."""
    folder = tmp_path_factory.mktemp("tfds")
    clips = [
        pathlib.Path(write_clip(folder / f"{video}.mp4", frames=3, video=video)).read_bytes()
        for video in range(2 * VIDEOS)
    ]
    features, core = tfds.features, tfds.core
    label = features.ClassLabel(names=CLASSES)
    image = features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="png")

    class Builder(core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = core.Version("1.0.0")

        def _info(self):
            described = features.FeaturesDict(self.described)
            return core.DatasetInfo(builder=self, features=described)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(VIDEOS)}

        def _generate_examples(self, first):
            for video in range(first, first + VIDEOS):
                yield f"video {video}", self.example(video)

    class Images(Builder, skip_registration=True):
        described = {"video": features.Sequence(image), "label": label}

        def example(self, video):
            return {"video": list(draw_frames(video)), "label": CLASSES[video % 3]}

    class Nested(Builder, skip_registration=True):
        described = {"clip": {"file": features.Text(), "label": label}, "name": features.Text()}

        def example(self, video):
            return {"clip": {"file": clips[video], "label": video % 3}, "name": "any"}

    class Numbered(Builder, skip_registration=True):
        described = {"clip": features.Text(), "number": np.int64}

        def example(self, video):
            return {"clip": clips[video], "number": min(video, 8)}

    class Ucf101(tfds.video.Ucf101, skip_registration=True):
        _split_generators = Builder._split_generators
        _generate_examples = Builder._generate_examples

        def example(self, video):
            return {"video": draw_frames(video), "label": self.info.features["label"].names[-video]}

    for file_format in FORMATS:
        for kind in (Images, Nested, Numbered, Ucf101):
            config = {"config": "ucf101_1"} if kind is Ucf101 else {}
            data_dir = str(folder / file_format)
            builder = kind(data_dir=data_dir, file_format=file_format, **config)
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return folder


def read_frames(video, size=(HEIGHT, WIDTH)):
    with video.media.open() as reader:
        return reader.read(np.arange(reader.num_frames)[None], size)[0]


def decode(value):
    """Return the frames of a video as the library reads it: arrays, images or a video file."""
    if isinstance(value, bytes):
        with av.open(io.BytesIO(value)) as file:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    if isinstance(value[0], bytes):
        value = [np.asarray(Image.open(io.BytesIO(image))) for image in value]
    return np.stack(value)


def expected_records(tfds, folder, name, split, video, label):
    """Return (id or None, frames, label) of the records, read by the library."""
    settings = dict(split=split, data_dir=str(folder), download=False)
    if folder.name == "array_record":
        records = tfds.data_source(name, **settings)
    else:
        nothing = {"video": tfds.decode.SkipDecoding()} if video == "video" else None
        order = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)
        records = tfds.load(
            name, **settings, decoders=nothing, read_config=order
        ).as_numpy_iterator()

    def value(record, key):
        for part in key.split("/"):
            record = record[part]
        return record

    for record in records:
        name = record.get("tfds_id", b"").decode().replace("__", "/")
        yield name, decode(value(record, video)), value(record, label)


def build_both(root, file_format, name, **settings):
    folder, video, label, _ = SETS[name]
    settings = dict(video=video, label=label, fps=25.0) | settings
    return (
        TfdsFolder(str(root / file_format / folder), **settings),
        Tfds(name, str(root / file_format), **settings),
    )


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", SETS)
def test_every_record_is_that_of_the_library(root, tfds, name, file_format):
    _, video, label, classes = SETS[name]
    by_folder, by_name = build_both(root, file_format, name)
    for split in ("train", "test"):
        part = getattr(by_folder, split)()
        assert part == getattr(by_name, split)() and len(part.classes["class"]) == classes
        assert len({video.id for video in part.videos}) == VIDEOS
        expected = expected_records(tfds, root / file_format, name, split, video, label)
        for got, (number, frames, answer) in zip(part.videos, expected, strict=True):
            assert got.labels == {"class": answer} and number in ("", got.id)
            np.testing.assert_array_equal(read_frames(got, frames.shape[1:3]), frames)
    if name != "numbered":
        info = tfds.builder_from_directory(by_folder.root).info
        feature = info.features["clip"] if name == "nested" else info.features
        assert part.classes["class"] == tuple(feature["label"].names)


def test_jpeg_decoders_differ_little(root, tfds):
    """TensorFlow decodes JPEG with another transform than Pillow, which the library uses too."""
    folder = root / "tfrecord"
    part = build_both(root, "tfrecord", "ucf101/ucf101_1:2.0.0")[0].train()
    order = tfds.ReadConfig(interleave_cycle_length=1)
    records = tfds.load(
        "ucf101/ucf101_1", split="train", data_dir=str(folder), download=False, read_config=order
    )
    for video, record in zip(part.videos, records.as_numpy_iterator(), strict=True):
        np.testing.assert_allclose(read_frames(video), record["video"].astype(float), atol=16)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("split", ["train[1:4]", "train[60%:]", "test+train[:1]"])
def test_parts_of_splits_are_those_of_the_library(root, tfds, file_format, split):
    by_name = build_both(root, file_format, "images", train_split=split)[1]
    expected = expected_records(tfds, root / file_format, "images", split, "video", "label")
    part = by_name.train()
    for got, (_, frames, answer) in zip(part.videos, expected, strict=True):
        assert got.labels == {"class": answer}
        np.testing.assert_array_equal(read_frames(got), frames)
    assert by_name.train() == part  # with labels from the cache


def read_in_worker(video):
    return read_frames(video), [name for name in sys.modules if name.startswith("tensorflow")]


def test_workers_read_without_the_library(root):
    part = build_both(root, "array_record", "images")[1].train()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results = pool.map(read_in_worker, part.videos)
    for video, (frames, imported) in zip(part.videos, results, strict=True):
        np.testing.assert_array_equal(frames, read_frames(video))
        assert not imported


def test_what_is_not_prepared_is_named(root):
    folder = root / "array_record"
    for name in ("images:2.0.0", "images/small", "ucf101", "mnist", "", "not a name"):
        with pytest.raises(ValueError, match=f"no data set '{name}' is prepared in {folder}: pass"):
            Tfds(name, str(folder)).train()
    with pytest.raises(
        ValueError, match="'images' is prepared in /none: .*--config.data.data_dir="
    ):
        Tfds("images", "/none").train()
    with pytest.raises(ValueError, match="is prepared in the default folder: "):
        Tfds("images").train()
    assert not (folder / "mnist").exists()
    for split in ("validation", "train[", "train[7:]"):
        data = Tfds("images", str(folder), train_split=split)
        with pytest.raises(ValueError, match=r"images/1.0.0 has no split .*\['test', 'train'\]"):
            data.train()
    with pytest.raises(ValueError, match="has no feature 'clip', but .*'label', 'video'"):
        Tfds("images", str(folder), video="clip", train_split="train[:2]").train()
    with pytest.raises(ValueError, match="/0 in .*: class must be one int or bytes, got "):
        Tfds("images", str(folder), label="class", train_split="train[:2]").train()


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_missing_shard_is_named(root, tmp_path, file_format):
    folder = tmp_path / "images" / "1.0.0"
    folder.mkdir(parents=True)
    for path in (root / file_format / "images" / "1.0.0").iterdir():
        if not path.name.endswith(f"train.{file_format}-00001-of-00002"):
            (folder / path.name).write_bytes(path.read_bytes())
    data = Tfds("images", str(tmp_path))
    with pytest.raises(ValueError, match="1 of 2 shards of train are not in"):
        data.train()
    assert len(data.test()) == VIDEOS


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.core.read_only_builder", None)
    data = build_dataset("Tfds", ["name=ucf101", "data_dir=/data", "fps=25"])
    assert data == Tfds("ucf101", "/data", fps=25.0) and isinstance(data, Listing)
    with pytest.raises(
        ValueError, match=r"^Tfds needs .*pip install 'vrl-jax\[tfds\]'.*TfdsFolder"
    ):
        data.pretrain()
    with pytest.raises(ValueError, match="fps must be at least 0"):
        Tfds(fps=-1.0)
