import pickle

import numpy as np
import pytest

from vrl_jax.data.datasets import wave_patterns
from vrl_jax.data.datasets.scene_rendering import SHAPES, Scene, shape_centre
from vrl_jax.data.datasets.synthetic import MOTIONS, Synthetic
from vrl_jax.data.video_dataset import HasMasks, HasTwins, VideoList, fingerprint

FRAMES = np.arange(16)[None]


def labels(source):
    labels = [source[i].labels for i in range(len(source))]
    return np.array([[v["static"], v["dynamic"]] for v in labels]).T


@pytest.mark.parametrize("cooccurrence", [1 / 8, 0.5, 0.9, 1.0])
def test_factors_cooccur_as_often_as_asked_in_pretraining(cooccurrence):
    data = Synthetic(pretrain_videos=4000, cooccurrence=cooccurrence)
    static, dynamic = labels(data.pretrain())
    assert (static == dynamic).mean() == pytest.approx(cooccurrence, abs=0.025)


def test_factors_are_independent_in_training():
    static, dynamic = labels(Synthetic(train_videos=2000, cooccurrence=0.9).train())
    assert (static == dynamic).mean() == pytest.approx(1 / 8, abs=0.03)
    counts = np.histogram2d(static, dynamic, bins=8)[0]
    assert counts.min() > 0.3 * counts.mean()


def test_a_video_is_a_function_of_seed_purpose_and_number():
    data = Synthetic()
    read = lambda source, i: source[i].media.read(FRAMES, (16, 16))  # noqa: E731  (four uses)
    again = pickle.loads(pickle.dumps(data.train()))
    np.testing.assert_array_equal(read(data.train(), 3), read(again, 3))
    assert not np.array_equal(read(data.train(), 3), read(data.train(), 4))
    assert not np.array_equal(read(data.train(), 3), read(data.test(), 3))
    assert not np.array_equal(read(data.train(), 3), read(Synthetic(seed=1).train(), 3))
    assert fingerprint(data.train()) == fingerprint(again) != fingerprint(data.test())


def scene(static=0, dynamic=0, **settings):
    usual = {"start": (0.5, 0.5), "phase": 0.2, "speed": 1.0, "radius": 0.18, "hues": (0.1, 0.6)}
    return Scene(static=static, dynamic=dynamic, frames=40, **{**usual, **settings})


def steps(dynamic, frames=40):
    places = shape_centre(scene(dynamic=dynamic), np.arange(frames))
    return (np.diff(places, axis=0) + 0.5) % 1 - 0.5


def test_motions_differ_in_trajectory_and_share_their_speed():
    lengths = [np.linalg.norm(steps(k), axis=-1) for k in range(len(MOTIONS))]
    for length in lengths:
        assert np.median(length) == pytest.approx(np.median(lengths[0]), rel=0.02)
    right, left, up, down, clockwise, counter, across, along = map(steps, range(8))
    assert (right[:, 0] > 0).all() and np.allclose(right, -left)
    assert (up[:, 1] < 0).all() and np.allclose(up, -down)
    turn = [
        np.cross(np.c_[s, 0 * s[:, :1]][:-1], np.c_[s, 0 * s[:, :1]][1:])[:, 2]
        for s in (clockwise, counter)
    ]
    assert (turn[0] > 0).all() and (turn[1] < 0).all()  # y points down
    for shuttle, axis in ((across, 0), (along, 1)):
        assert np.allclose(shuttle[:, 1 - axis], 0) and len(set(np.sign(shuttle[:, axis]))) == 2


def test_appearance_does_not_depend_on_motion():
    one, other = scene(3, 0), scene(3, 5)
    a, b = (s.read(np.zeros((1, 1), int), (32, 32))[0, 0] for s in (one, other))
    # The same shape on the same background, elsewhere: shifting one onto the other makes them equal
    # wherever both show the shape, and the sets of colours agree.
    assert abs(a.astype(int).mean() - b.astype(int).mean()) < 1.5


@pytest.mark.parametrize("static", range(8))
def test_shapes_differ_and_are_visible(static):
    frame = scene(static).read(np.zeros((1, 1), int), (32, 32))[0, 0].astype(int)
    empty = scene(static, radius=1e-3).read(np.zeros((1, 1), int), (32, 32))[0, 0].astype(int)
    changed = np.abs(frame - empty).max(-1) > 10
    assert 0.01 < changed.mean() < 0.25, SHAPES[static]
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 15.5) < 8 and abs(columns.mean() - 15.5) < 8


def test_size_and_shape_of_what_is_read():
    clips = scene().read(np.array([[0, 5], [7, 7]]), (12, 20))
    assert clips.shape == (2, 2, 12, 20, 3) and clips.dtype == np.uint8
    np.testing.assert_array_equal(clips[1, 0], clips[1, 1])


@pytest.mark.parametrize("static", range(8))
def test_masks_are_where_the_shape_is_drawn(static):
    read = lambda **settings: scene(static, 5, **settings).read(FRAMES, (32, 24))  # noqa: E731
    clips, masks = read().astype(int), read(masked=True)
    assert masks.shape == clips.shape and masks.dtype == np.uint8
    assert np.array_equal(masks[..., 0], masks[..., 2])
    assert 0.01 < masks.mean() / 255 < 0.2 and masks.max() == 255
    ink, ground = (np.abs(read(hues=hues) - clips).max(-1) for hues in ((0.5, 0.6), (0.1, 0.2)))
    inside, outside = masks[..., 0] == 255, masks[..., 0] == 0
    assert (ink[outside] <= 1).all() and (ink[inside] > 10).mean() > 0.9
    assert (ground[inside] <= 1).all() and (ground[outside] > 10).mean() > 0.9


def test_rendered_videos_have_masks_and_twins_and_lists_have_not():
    for kind in (HasMasks, HasTwins):
        assert isinstance(Synthetic().test(), kind) and not isinstance(VideoList((), {}), kind)


def test_masks_and_twins_are_of_the_same_videos():
    source = Synthetic(test_videos=40, classes=5).test()
    twins = source.twins()
    moved, dressed = twins["dynamic"], twins["static"]
    assert set(twins) == {"static", "dynamic", "phase"}
    for number in range(40):
        video, mask = source[number], source.masks()[number]
        assert mask.id == video.id and mask.labels == video.labels
        assert vars(mask.media) == {**vars(video.media), "masked": True}
        a, b = moved[number], dressed[number]
        assert a.labels["static"] == video.labels["static"]
        assert a.labels["dynamic"] != video.labels["dynamic"]
        assert b.labels["dynamic"] == video.labels["dynamic"]
        assert b.labels["static"] != video.labels["static"]
        assert vars(a.media) == {**vars(video.media), "dynamic": a.labels["dynamic"]}
        np.testing.assert_array_equal(
            shape_centre(b.media, FRAMES[0]), shape_centre(video.media, FRAMES[0])
        )
        turn = (b.labels["static"] - video.labels["static"]) / 5
        hues = (np.array(video.media.hues) + turn) % 1
        np.testing.assert_allclose(b.media.hues, hues, atol=1e-9)
    classes = np.array(
        [[m["static"], m["dynamic"]] for m in (v.labels for v in map(moved.__getitem__, range(40)))]
    )
    assert len(np.unique(classes[:, 1])) == 5


def read(source, videos):
    """Return videos in [-0.5, 0.5], long enough for averages over time."""
    shown = [source[i].media.read(np.arange(200)[None], (12, 12))[0] for i in range(videos)]
    return np.stack(shown) / 255 - 0.5


@pytest.mark.parametrize("motion, rank", [("travelling", 2), ("standing", 1)])
def test_gratings_move_in_few_dimensions_and_at_known_rates(motion, rank):
    data = Synthetic(motion=motion)
    for i, video in enumerate(read(data.test(), videos=4)):
        moves = (video - video.mean(0)).mean(-1).reshape(len(video), -1)
        values, images = np.linalg.eigh(moves.T @ moves)
        energy = values[::-1] / np.sum(values)
        assert energy[:rank].sum() > 0.98 and energy[:rank].min() > 0.3 * energy[0]
        scene = data.test()[i].media
        weight = np.abs(np.fft.rfft(moves @ images[:, -1]))
        rate = 2 * np.pi * weight.argmax() / len(video)
        rates = (0.75, 0.75) if motion == "travelling" else (0.5, 0.85)
        assert rate == pytest.approx(rates[scene.dynamic % 2] * scene.speed, abs=0.02)
    slow, fast = data.standing_rate, 0.8 * 0.5
    assert slow == (pytest.approx(fast) if motion == "standing" else 0)


@pytest.mark.parametrize("standing", [False, True])
def test_one_frame_does_not_reveal_which_grating_moves(standing):
    axis = (np.arange(16) + 0.5) / 16
    grid = axis[None], axis[:, None]
    waves = np.stack([
        np.exp(2j * np.pi * wave_patterns.CYCLES * (a * grid[0] + b * grid[1]))
        for a, b in wave_patterns.DIRECTIONS[:2]
    ])  # fmt: skip
    rng, sizes = np.random.default_rng(0), []
    for _ in range(400):
        gratings = wave_patterns.Gratings(*map(tuple, rng.random((2, 4)).tolist()), standing)
        frame = wave_patterns.draw_gratings(gratings, 0, 1.0, np.array([9]), grid)
        sizes.append(np.abs((frame * waves).mean((1, 2))))
    moving, resting = np.sort(sizes, axis=0).T  # of two distributions, all quantiles agree
    assert np.abs(moving - resting).mean() < 0.05 * resting.mean()


@pytest.mark.parametrize("motion", ["shapes", "travelling", "standing"])
def test_a_drift_changes_pixels_as_often_as_asked_as_much_as_the_motion(motion):
    still, drifts = (
        read(Synthetic(motion=motion, drift=drift).test(), videos=16) for drift in (0.0, 2.0)
    )
    drift = 3 * drifts - still  # contrasts are shrunk by 1 + drift
    effects = [np.sqrt((x - x.mean(1, keepdims=True)).var()) for x in (drift, still)]
    assert effects[0] == pytest.approx(2 * effects[1], rel=0.2)
    assert np.abs(drifts).max() < 0.5  # nothing is clipped


def test_a_drift_is_slow_shared_by_a_video_and_independent_of_the_other_factors():
    data = Synthetic(motion="travelling", drift=1.0, pretrain_videos=2000, train_videos=2000)
    for source in (data.pretrain(), data.train()):
        labels = [source[i].labels for i in range(len(source))]
        for other in ("static", "dynamic"):
            pairs = np.histogram2d(*np.array([[v["drift"], v[other]] for v in labels]).T, bins=8)[0]
            assert pairs.min() > 0.3 * pairs.mean() and pairs.max() < 2 * pairs.mean()
    rates = [data.test()[i].media.drift.rate for i in range(200)]
    assert 0.1 <= min(rates) < 0.11 and 0.24 < max(rates) <= 0.25
    fixed = Synthetic(drift=1.0, drift_rate=0.2).test()
    assert fixed[0].media.drift.rate == 0.2 and fixed[0].labels.keys() == fixed.classes.keys()
    # Every other draw is that of the same video without a drift.
    plain = Synthetic().test()
    for i in range(9):
        assert vars(fixed[i].media) == {**vars(plain[i].media), "drift": fixed[i].media.drift}


def test_twins_of_gratings_and_drifts_differ_in_one_factor():
    source = Synthetic(motion="standing", drift=1.0).test()
    changed = {"static": {"static", "hues"}, "dynamic": {"dynamic"}}
    changed |= {"drift": {"drift"}, "phase": {"gratings"}}
    for factor, twin in source.twins().items():
        one, other = vars(source[5].media), vars(twin[5].media)
        assert {name for name in one if one[name] != other[name]} == changed.pop(factor)
    assert not changed
    moved = vars(Synthetic().test().twins()["phase"][5].media)
    assert {k for k, v in vars(Synthetic().test()[5].media).items() if v != moved[k]} == {"start"}
    assert (source.masks()[0].media.read(FRAMES, (8, 8)) == 255).all()  # all of it moves


def test_bad_settings_are_refused():
    with pytest.raises(
        ValueError, match="motion must be one of 'shapes', 'travelling', 'standing'"
    ):
        Synthetic(motion="waves")
    with pytest.raises(ValueError, match="drift must be at least 0"):
        Synthetic(drift=-1.0)
    with pytest.raises(ValueError, match="cooccurrence must lie in"):
        Synthetic(cooccurrence=1.2)
    with pytest.raises(ValueError, match="classes must be at most 8, got 9"):
        Synthetic(classes=9)
    with pytest.raises(IndexError, match="video 1024 of 1024"):
        Synthetic().train()[1024]
