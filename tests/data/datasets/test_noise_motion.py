"""Moving noise: one frame tells nothing, differences of frames tell the motion."""

import numpy as np
import pytest

from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.datasets.noise_motion import NoiseMotion, animate_noise
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.probes.knn import knn_accuracy
from vrl_jax.probes.linear_probe import LinearProbe, fit_probe

VIDEOS, CLASSES, SIDE = 192, 4, 16
BLIND = 1 / CLASSES + 3.5 * np.sqrt(1 / CLASSES * (1 - 1 / CLASSES) / VIDEOS)
QUICK = LinearProbe(learning_rates=(0.01,), weight_decays=(0.1,), steps=40)


def read(part, frames):
    """Return frames in [0, 1] and labels of all videos."""
    videos, clips = [part[number] for number in range(len(part))], []
    for video in videos:
        with video.media.open() as reader:
            clips.append(reader.read(np.array([frames]), (SIDE, SIDE))[0, ..., 0])
    labels = {name: np.array([v.labels[name] for v in videos]) for name in part.classes}
    return np.stack(clips) / np.float32(255), labels


def velocity(clips):
    """Return the mean motion of the place of change between frames, as wide as a frame."""
    change, turns = np.abs(np.diff(clips, axis=1)), np.exp(2j * np.pi * np.arange(SIDE) / SIDE)
    places = [change.sum(axis) @ turns for axis in (2, 3)]
    moves = [np.angle((z[:, 1:] * z[:, :-1].conj()).sum(1)) for z in places]
    return np.pad(np.stack(moves, 1), [(0, 0), (0, SIDE**2 - 2)]).astype(np.float32)


def accuracies(describe, train, test, label):
    (clips, labels), (others, truth) = train, test
    features = describe(clips), describe(others)
    linear = fit_probe(
        features[0], labels[label], features[1], truth[label], num_classes=CLASSES, settings=QUICK
    )
    return linear.accuracy, knn_accuracy(features[0], labels[label], features[1], truth[label])


def still(clips):
    return clips[:, 3].reshape(len(clips), -1) - 0.5


@pytest.mark.parametrize("seed", range(3))
def test_appearance_is_at_chance_and_motion_is_in_differences(seed):
    rendered = Synthetic(
        train_videos=VIDEOS, test_videos=VIDEOS, classes=CLASSES, frames=10, seed=seed
    )
    noise = NoiseMotion(rendered, seed=seed)
    train, test = (read(part, range(7)) for part in (noise.train(), noise.test()))
    for label in ("static", "dynamic"):
        for accuracy in accuracies(still, train, test, label):
            assert accuracy < BLIND, label
    assert min(accuracies(velocity, train, test, "dynamic")) > 0.9
    seen = [read(part, range(3, 4)) for part in (rendered.train(), rendered.test())]
    flat = [(clips.repeat(4, 1), labels) for clips, labels in seen]
    assert min(accuracies(still, *flat, "static")) > BLIND  # these probes do see appearance


def test_noise_rests_outside_of_the_mask_and_moves_inside():
    masks = np.zeros((3, 12, 12), bool)
    for number, mask in enumerate(masks):
        mask[2:6, number : number + 5] = True
    frames = animate_noise(masks, np.random.default_rng(0))
    assert set(np.unique(frames)) == {0, 255}
    for number, (mask, frame) in enumerate(zip(masks, frames, strict=True)):
        both = ~(mask | masks[0])
        np.testing.assert_array_equal(frame[both], frames[0][both])
        np.testing.assert_array_equal(frame[2:6, number : number + 5], frames[0][2:6, :5])


def test_any_data_set_with_masks_is_read_from_the_command_line():
    data = dataset_lookup.build_dataset("NoiseMotion", ["data=Synthetic train_videos=3", "seed=2"])
    assert data == NoiseMotion(Synthetic(train_videos=3), seed=2)
    train, rendered = data.train(), data.data.train()
    assert not train.mirror_safe
    assert [train[i].labels for i in range(3)] == [rendered[i].labels for i in range(3)]
    clips = read(train, range(2))[0]
    np.testing.assert_array_equal(clips, read(train, range(2))[0])
    assert (clips != read(NoiseMotion(data.data).train(), range(2))[0]).any((1, 2, 3)).all()
    with pytest.raises(ValueError, match="NoiseMotion needs masks, but NoiseMotion.* has none"):
        NoiseMotion(data).train()
