import numpy as np
import pytest

from vrl_jax.evaluate.features import extract


@pytest.mark.parametrize("videos, rows, clips", [(7, 3, 2), (6, 3, 1), (2, 5, 3)])
def test_every_video_once_its_clips_averaged(rng, videos, rows, clips):
    data = rng.integers(0, 256, (videos, clips, 2, 4, 4, 3), np.uint8)
    shapes = set()

    def encode(batch):
        shapes.add(batch.shape)
        return batch.reshape(len(batch), -1)[:, :5].astype(np.float32)

    batches = [
        {"clips": data[i : i + rows], "labels": {"class": np.arange(videos)[i : i + rows]}}
        for i in range(0, videos, rows)
    ]
    bank = extract(encode, batches, rows=rows)
    wanted = data.reshape(videos, clips, -1)[:, :, :5].astype(float).mean(1)
    np.testing.assert_allclose(bank.features, wanted, rtol=1e-6)
    np.testing.assert_array_equal(bank.labels["class"], np.arange(videos))
    assert len(shapes) == 1  # a short batch does not compile anew
