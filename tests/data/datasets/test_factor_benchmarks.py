import csv
import gc
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vrl_jax.data.datasets import factor_benchmarks
from vrl_jax.data.datasets.factor_benchmarks import JHMDB, EgoGestAR, Sprites, name_source
from vrl_jax.data.video.frame_arrays import MaskFile
from vrl_jax.data.video_dataset import HasMasks, VideoError


def labels(source, name):
    return [source[i].labels[name] for i in range(len(source))]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_jhmdb_has_its_official_splits_and_source_videos(videos, split):
    data = JHMDB(str(videos / "jhmdb21"), str(videos / "annotations/jhmdb21"), split)
    train, test = data.train(), data.test()
    assert len(train) + len(test) == 928 and len(train) == {1: 660, 2: 658, 3: 663}[split]
    assert len(train.classes["class"]) == 21 and not isinstance(train, HasMasks)
    with open(videos / "jhmdb21/MANIFEST.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    parts = {row["path"].removeprefix("jhmdb21/")[:-4]: row[f"split{split}"] for row in rows}
    groups = {row["path"].removeprefix("jhmdb21/")[:-4]: row["group"] for row in rows}
    for part, source in (("train", train), ("test", test)):
        ids = [source[i].id.removesuffix(".avi").removesuffix(".mp4") for i in range(len(source))]
        assert {id: part for id in ids}.items() <= parts.items()
        for name, id in zip(labels(source, "source"), ids, strict=True):
            assert source.classes["source"][name] == groups[id]
    known = set(labels(train, "source"))  # the official splits do not keep source videos apart
    assert sum(name in known for name in labels(test, "source")) == {1: 48, 2: 39, 3: 56}[split]


def test_masks_of_jhmdb_fit_their_videos(videos):
    lists, masks = str(videos / "annotations/jhmdb21"), str(videos / "masks/jhmdb21")
    test = JHMDB(str(videos / "jhmdb21"), lists, 1, masks).test()
    assert isinstance(test, HasMasks)
    for i in (0, 100, 200):
        with test[i].media.open() as video, test.masks()[i].media.open() as mask:
            assert (mask.num_frames, mask.fps) == (video.num_frames, pytest.approx(video.fps))
            frames = np.array([[0, 3], [mask.num_frames - 1, 3]])
            read = mask.read(frames, (48, 64))
            assert read.shape == (2, 2, 48, 64, 3) and read.dtype == np.uint8
            assert 0.01 < (read > 127).mean() < 0.6
            np.testing.assert_array_equal(read[0, 1], read[1, 1])


def test_the_name_of_a_source_may_have_the_name_of_the_action():
    assert name_source("wave/21_wave_u_nm_np1_fr_goo_5.avi") == "21"
    path = "clap/woman__Nao_is_clapping_with_clap_u_cm_np1_fr_med_1.avi"
    assert name_source(path) == "woman__Nao_is_clapping_with"


def test_a_mask_is_unpacked_and_a_damaged_one_named(tmp_path, rng):
    mask = rng.random((3, 10, 14)) < 0.5
    np.savez(tmp_path / "a.npz", mask=np.packbits(mask, axis=-1), shape=mask.shape)
    with MaskFile(str(tmp_path / "a.npz"), 30.0).open() as reader:
        read = reader.read(np.arange(3)[None], (10, 14))
    np.testing.assert_array_equal(read[0, ..., 1], 255 * mask)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:50])
    for name in ("b.npz", "absent.npz"):
        with pytest.raises(VideoError, match=name), MaskFile(str(tmp_path / name), 30.0).open():
            pass


def test_threads_read_masks_at_once(tmp_path):
    np.savez(tmp_path / "a.npz", mask=np.zeros((3, 10, 2), np.uint8), shape=(3, 10, 14))
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()

    def read(_):
        with MaskFile(str(tmp_path / "a.npz"), 30.0).open() as reader:
            return reader.num_frames

    gc.callbacks.append(lambda phase, info: sum(range(200)))  # Python code, as that of JAX
    try:
        gc.set_threshold(20, 5, 5)
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(read, range(512))) == {3}
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)


def egogestar(videos, **settings):
    scenes = videos / "annotations/egogestar/scenes.tsv"
    return EgoGestAR(str(videos / "egogestar"), str(scenes), **settings)


def test_gestures_are_tested_in_other_scenes_and_scenes_by_other_gestures(videos):
    for split in (1, 2):
        data = egogestar(videos, split=split)
        train, test = data.train(), data.test()
        assert {len(train), len(test)} == {72, 73} and len(data.pretrain()) == len(train)
        assert not set(labels(train, "scene")) & set(labels(test, "scene"))
        assert set(labels(train, "gesture")) == set(labels(test, "gesture")) == set(range(10))
        data = egogestar(videos, split=split, factor="scene")
        train, test = data.train(), data.test()
        assert not set(labels(train, "gesture")) & set(labels(test, "gesture"))
        count = len(train.classes["scene"])
        assert set(labels(train, "scene")) == set(labels(test, "scene")) == set(range(count))
        assert not train.mirror_safe and not train.reverse_safe


def test_a_table_of_scenes_without_a_fold_is_named(tmp_path):
    (tmp_path / "scenes.tsv").write_text("path\tgesture\tscene\tfold\na/b.mp4\tup\tdesk\t3\n")
    data = EgoGestAR(str(tmp_path), str(tmp_path / "scenes.tsv"))
    with pytest.raises(ValueError, match="scenes.tsv, line 2: .* fold 1 or 2"):
        data.train()
    (tmp_path / "scenes.tsv").write_text("path\tgesture\na/b.mp4\tup\n")
    with pytest.raises(ValueError, match="must have videos in the columns path, gesture, scene"):
        data.test()


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Layers of sprites whose opaque squares tell part, variant and cell."""
    root = tmp_path_factory.mktemp("layers")
    for index, part in enumerate([*factor_benchmarks.SPRITE_PARTS.values(), "shoes"]):
        for variant in range(6):
            sheet = np.zeros((16 * 64, 9 * 64, 4), np.uint8)
            for row in range(16):
                for column in range(9):
                    cell = sheet[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
                    cell[:, 12 * index : 12 * index + 12] = (40 * variant, row, column, 255)
            (root / part).mkdir(exist_ok=True)
            Image.fromarray(sheet).save(root / part / f"{variant}.png")
    return root


def test_a_sprite_is_drawn_of_its_layers_and_of_the_cells_of_its_motion(layers):
    data = Sprites(str(layers), train_characters=3, test_characters=2)
    train, test = data.train(), data.test()
    assert len(train) == 27 and len(test) == 18 and not train.mirror_safe
    ids = {source[i].id.split("/")[1] for source in (train, test) for i in range(len(source))}
    assert len(ids) == 5  # no character is in both parts
    for i in (0, 10, 26):
        video = pickle.loads(pickle.dumps(train[i]))
        with video.media.open() as reader:
            assert (reader.num_frames, reader.fps) == (8, 10.0)
            frames = reader.read(np.arange(8)[None], (64, 64))[0]
        names = list(factor_benchmarks.SPRITE_PARTS)
        for index, name in enumerate(names):
            assert (frames[:, 5, 12 * index + 5, 0] == 40 * video.labels[name]).all()
        action, way = train.classes["motion"][video.labels["motion"]].split(" ")
        assert (frames[:, 5, 55, 1] == factor_benchmarks.SPRITE_ROWS[action][way]).all()
        np.testing.assert_array_equal(frames[:, 5, 55, 2], factor_benchmarks.SPRITE_COLUMNS[action])
    with pytest.raises(ValueError, match="test_characters must be from 1 to 296, got 297"):
        Sprites(str(layers), test_characters=297)


def test_sprites_are_those_of_the_benchmark(videos):
    data = Sprites(str(videos / "sprites/layers"))
    assert len(data.train()) == 9000 and len(data.test()) == 2664
    with data.test()[4].media.open() as reader:
        frames = reader.read(np.arange(8)[None], (64, 64))[0]
    assert 0.1 < (frames > 0).any(-1).mean() < 0.6 and np.abs(np.diff(frames, axis=0)).any()
