import jax
import numpy as np
import pytest

from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.training_views import StrongAugment, make_training_views
from vrl_jax.train.sharding import make_mesh

PLAIN = Augment(
    size=4, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0, mean=(0.0,) * 3, std=(1.0,) * 3
)


def test_views_of_all_clips_come_before_their_next_views(rng):
    clips = rng.integers(256, size=(2, 3, 2, 4, 4, 3), dtype=np.uint8)
    mesh, keys = make_mesh(jax.devices()[:1]), (jax.random.key(0), jax.random.key(1))

    @jax.jit
    def views(clips, rows):
        return make_training_views(*keys, clips, PLAIN, StrongAugment(views=2), mesh, rows)

    expected = np.concatenate([clips, clips], axis=1) / np.float32(255)
    np.testing.assert_allclose(views(clips, np.arange(2)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 0}, "views must be at least 1, got 0"),
        ({"erase": 1.5}, "erase must lie in"),
        ({"rand": "strong"}, "rand must be a policy such as .*, got 'strong'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StrongAugment(**settings)
