import numpy as np
import pytest

from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.probes.feature_bank import extract_features


@pytest.mark.parametrize("videos, rows, clips", [(7, 3, 2), (6, 3, 1), (2, 5, 3)])
def test_every_video_once_its_clips_averaged(rng, videos, rows, clips):
    data = rng.integers(0, 256, (videos, clips, 2, 4, 4, 3), np.uint8)
    shapes = set()

    def encode(batch):
        shapes.add(batch.shape)
        return batch.reshape(len(batch), -1)[:, :5].astype(np.float32)

    batches = [
        {
            "clips": data[i : i + rows],
            "index": np.arange(videos)[i : i + rows],
            "failures": np.array(["no" if j == 1 else "" for j in range(videos)][i : i + rows]),
        }
        for i in range(0, videos, rows)
    ]
    bank = extract_features(encode, batches, numbered(videos), rows=rows)
    expected = data.reshape(videos, clips, -1)[:, :, :5].astype(float).mean(1)
    np.testing.assert_allclose(bank.features, expected, rtol=1e-6)
    np.testing.assert_array_equal(bank.labels["class"], np.arange(videos))
    assert bank.unreadable.tolist() == [j == 1 for j in range(videos)]
    assert bank.readable().labels["class"].tolist() == [j for j in range(videos) if j != 1]
    assert len(shapes) == 1  # a short batch does not compile anew


def numbered(videos):
    names = tuple(map(str, range(videos)))
    rows = tuple(Video(name, VideoFile(""), {"class": i}) for i, name in enumerate(names))
    return VideoList(rows, {"class": names})


@pytest.mark.parametrize("videos", [5, 8, 9])
def test_hosts_that_take_turns_make_the_whole_bank(rng, videos):
    data, rows, hosts = rng.integers(0, 256, (videos, 1, 2, 4, 4, 3), np.uint8), 4, 2
    by_host = [np.arange(videos)[host::hosts] for host in range(hosts)]
    calls = [iter_rows(data, by_host[host], rows // hosts) for host in range(hosts)]
    fed = [[], []]
    for host in range(hosts):
        extract_features(
            lambda x, host=host: fed[host].append(x) or np.zeros((4, 3)),
            calls[host],
            numbered(videos),
            rows=rows,
            hosts=hosts,
        )
    assert len(fed[0]) == len(fed[1]) == -(-videos // rows)
    together = iter(np.concatenate(pair) for pair in zip(*fed, strict=True))

    def encode(clips):
        return next(together).reshape(rows, -1)[:, :5].astype(np.float32)

    bank = extract_features(
        encode, iter_rows(data, by_host[0], 2), numbered(videos), rows=rows, hosts=hosts
    )
    np.testing.assert_array_equal(bank.features, data.reshape(videos, -1)[:, :5])


def iter_rows(data, index, share):
    return [
        {"clips": data[part], "index": part, "failures": np.array([""] * len(part))}
        for part in np.split(index, range(share, len(index), share))
    ]
