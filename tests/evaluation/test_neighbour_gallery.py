import numpy as np
import pytest

from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.evaluation.neighbour_gallery import find_neighbours
from vrl_jax.probes.feature_bank import FeatureBank

CLASSES = {"shape": ("disc", "bar", "ring"), "who": ("ann", "bob", "cyd")}


def part(rng, count, prefix):
    labels = {name: rng.integers(3, size=count) for name in CLASSES}
    videos = tuple(
        Video(
            f"{prefix}{i}", VideoFile("absent"), {name: int(of[i]) for name, of in labels.items()}
        )
        for i in range(count)
    )
    features = rng.normal(size=(count, 5)).astype(np.float32) + 3
    return VideoList(videos, CLASSES), FeatureBank(features, labels, rng.random(count) < 0.2)


def read(source, index):
    """Return clips that say which video they are of."""
    kind, number = source[int(index)].id[0], int(source[int(index)].id[1:])
    return np.full((2, 3, 4, 4, 3), number + 100 * (kind == "t"), np.uint8)


@pytest.mark.parametrize("center", ["none", "train", "each"])
@pytest.mark.parametrize("group", ["", "who"])
def test_neighbours_are_the_nearest_that_are_allowed(rng, center, group):
    train, test = part(rng, 40, "g"), part(rng, 17, "t")
    shown = find_neighbours(train, test, read, count=5, group=group, center=center)
    known, asked = train[1], test[1]
    readable = [i for i in range(40) if not known.unreadable[i]]
    queries = [i for i in range(17) if not asked.unreadable[i]]
    mean = known.features[readable].mean(0)
    own_mean = asked.features[queries].mean(0)
    assert shown["label_names"].tolist() == [n for n in CLASSES if n != group]
    for place in range(5):
        query = int(shown["queries"][place].flat[0]) - 100
        assert query in queries
        scores = {}
        for item in readable:
            if group and known.labels["who"][item] == asked.labels["who"][query]:
                continue
            a, b = asked.features[query].astype(float), known.features[item].astype(float)
            if center != "none":
                a, b = a - (own_mean if center == "each" else mean), b - mean
            scores[item] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        best = sorted(scores, key=scores.get, reverse=True)[:4]
        assert shown["gallery"][place, :, 0, 0, 0, 0].tolist() == best
        np.testing.assert_allclose(shown["similarity"][place], [scores[i] for i in best], atol=1e-5)
        names = shown["label_names"].tolist()
        for k, item in enumerate(best):
            same = [asked.labels[n][query] == known.labels[n][item] for n in names]
            assert shown["same"][place, k].tolist() == same
            told = ", ".join(CLASSES[n][known.labels[n][item]] for n in names)
            assert shown["gallery_labels"][place, k] == told


def test_few_test_videos_are_shown_once(rng):
    train, test = part(rng, 40, "g"), part(rng, 7, "t")
    shown = find_neighbours(train, test, read, count=9, group="", center="none")
    numbers = [int(clip.flat[0]) - 100 for clip in shown["queries"]]
    assert numbers == np.flatnonzero(~test[1].unreadable).tolist()
