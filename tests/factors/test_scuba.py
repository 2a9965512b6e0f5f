import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from vrl_jax.data.data_loader import eval_batches
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video.media_containers import ZippedFrames
from vrl_jax.data.video_dataset import Video, VideoError, VideoList
from vrl_jax.factors import scuba

FRAMES = np.array([[0, 2, 3], [1, 1, 4]])


def write_zip(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, image in enumerate(images):
            with archive.open(f"{number:03}.png", "w") as file:
                Image.fromarray(image).save(file, "png")


@pytest.mark.parametrize("size", [(24, 32), (112, 112)])
def test_stripes_have_two_complementary_colours_and_vary(rng, size):
    images = [scuba.draw_stripes(rng, size) for _ in range(20)]
    shares = []
    for image in images:
        assert image.shape == (*size, 3) and image.dtype == np.uint8
        colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        assert len(colours) == 2 and (abs(colours.astype(int).sum(0) - 255) <= 1).all()
        shares.append(counts.min() / counts.sum())
    assert 0.25 < np.mean(shares) < 0.5
    assert len({image.tobytes() for image in images}) == 20


def test_stripes_go_at_all_angles(rng):
    """Changes along rows and along columns are equally many, over many images."""
    across = down = 0
    for _ in range(60):
        image = scuba.draw_stripes(rng, (64, 64))[..., 0].astype(int)
        across += (np.diff(image, axis=1) != 0).sum()
        down += (np.diff(image, axis=0) != 0).sum()
    assert 0.6 < across / down < 1.6


def test_the_foreground_stays_and_the_background_goes(rng):
    clip = rng.integers(0, 256, (5, 16, 12, 3)).astype(np.uint8)
    mask = rng.random((5, 16, 12)) < 0.4
    pasted = scuba.paste_on_stripes(clip, mask, 3)
    for t in range(5):
        for y in range(16):
            for x in range(12):
                if mask[t, y, x]:
                    assert (pasted[t, y, x] == clip[t, y, x]).all()
    outside = ~mask[0] & ~mask[4]
    np.testing.assert_array_equal(pasted[0][outside], pasted[4][outside])  # a still background
    np.testing.assert_array_equal(pasted, scuba.paste_on_stripes(clip, mask, 3))
    other = clip.copy()
    other[0, 0, 0] += 1
    assert (scuba.paste_on_stripes(other, mask, 3)[0] != pasted[0])[~mask[0]].any()


def test_strangers_share_as_little_as_can_be(rng):
    labels = {"a": rng.integers(0, 3, 50), "b": rng.integers(0, 2, 50)}
    chosen = scuba.draw_dissimilar(labels, 0)
    assert all((labels[name][chosen] != labels[name]).all() for name in labels)
    np.testing.assert_array_equal(chosen, scuba.draw_dissimilar(labels, 0))
    assert not np.array_equal(chosen, scuba.draw_dissimilar(labels, 1))
    assert len(set(chosen.tolist())) > 15
    crowd = {"a": np.zeros(6, int), "b": np.array([0, 1, 1, 1, 1, 1])}
    chosen = scuba.draw_dissimilar(crowd, 0)
    assert (chosen[1:] == 0).all() and chosen[0] != 0
    alike = scuba.draw_dissimilar({"a": np.zeros(3, int)}, 0)
    assert (alike != np.arange(3)).all()  # never itself


def test_stills_show_the_middle_frame_of_a_clip_of_another_class():
    source = Synthetic(test_videos=12, classes=3).test()
    stills = pickle.loads(pickle.dumps(scuba.background_stills(source, 0)))
    donors = scuba.draw_dissimilar(
        {name: np.array([source[i].labels[name] for i in range(12)]) for name in source.classes}, 0
    )
    for number in (0, 7):
        assert stills[number].id == source[number].id
        assert stills[number].labels == source[number].labels
        with stills[number].media.open() as reader:
            clips = reader.read(FRAMES, (16, 16))
        expected = source[int(donors[number])].media.read(FRAMES[:, 1:2], (16, 16))
        np.testing.assert_array_equal(clips, np.repeat(expected, 3, axis=1))


@pytest.fixture
def real(tmp_path, rng):
    """Three videos of 5 frames: with a mask of its length, a longer one, and none."""
    names, videos = ["walk/a one.avi", "walk/b", "run/c.mp4"], []
    for number, name in enumerate(names):
        path = tmp_path / f"videos/{number}.zip"
        write_zip(path, rng.integers(0, 256, (5, 20, 30, 3)).astype(np.uint8))
        videos.append(Video(name, ZippedFrames(str(path)), {"class": number % 2}))
    mask = np.zeros((6, 20, 30, 3), np.uint8)
    mask[:, 5:15, 10:20] = 255
    write_zip(tmp_path / "masks/walk/a one.zip", mask[:5])
    write_zip(tmp_path / "masks/walk/b.zip", mask)
    return VideoList(tuple(videos), {"class": ("x", "y")}), str(tmp_path / "masks"), mask[:, ..., 0]


def test_masks_in_a_folder_are_read_as_their_videos_are(real):
    source, folder, mask = real
    masks = scuba.load_masks(folder, source)
    assert [video.id for video in masks.videos] == [video.id for video in source.videos]
    with masks[0].media.open() as reader, source[0].media.open() as whole:
        assert (reader.num_frames, reader.fps) == (5, whole.fps)
        frames = reader.read(FRAMES, (20, 30))
    np.testing.assert_array_equal(frames[..., 0] > 127, mask[FRAMES] > 127)
    with pytest.raises(
        VideoError, match="must have the 5 frames of the video that it masks, got 6"
    ):
        with masks[1].media.open():
            pass
    batches = list(eval_batches(masks, Sampling(4, 1, 1), (10, 15), batch=3))
    assert [bool(why) for why in batches[0]["failures"]] == [False, True, True]
    assert batches[0]["clips"][0].any() and not batches[0]["clips"][1:].any()


def test_a_missing_folder_is_named(real):
    with pytest.raises(ValueError, match="masks must be a folder, got '/nowhere'"):
        scuba.load_masks("/nowhere", real[0])
