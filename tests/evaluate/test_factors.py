"""What the rendered videos promise: one frame tells no motion, and a path tells no appearance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.data.pipeline import eval_batches
from vrl_jax.data.sample import Sampling
from vrl_jax.data.synthetic import Synthetic
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluate.linear import LinearProbe, probe

VIDEOS, CLASSES = 512, 8
CHANCE = 1 / CLASSES
NOISE = 3 * np.sqrt(CHANCE * (1 - CHANCE) / VIDEOS)  # three standard deviations of a blind guess


@pytest.fixture(scope="module")
def sets():
    data = Synthetic(train_videos=VIDEOS, test_videos=VIDEOS, cooccurrence=0.9)
    return [read(data.train()), read(data.test())]


def read(source):
    batches = list(eval_batches(source, Sampling(16, 1, 1), (32, 32), batch=64))
    clips = np.concatenate([batch["clips"][:, 0] for batch in batches]) / np.float32(255)
    labels = [source[number].labels for number in range(len(source))]
    return clips, {name: np.array([of[name] for of in labels]) for name in labels[0]}


def accuracies(encode, sets):
    (train, known), (test, asked) = sets
    features = encode(train), encode(test)
    return {
        name: probe(
            features[0],
            known[name],
            features[1],
            asked[name],
            num_classes=CLASSES,
            settings=LinearProbe(),
        ).accuracy
        for name in known
    }


def one_frame(clips):
    """Encode the middle frame, held for the whole clip."""
    held = np.repeat(clips[:, 8:9], clips.shape[1], axis=1)
    encoder = Tiny().module()
    variables = encoder.init(jax.random.key(0), jnp.array(held[:1]), False)
    encode = jax.jit(lambda x: encoder.apply(variables, x, False).clip)
    return np.concatenate([encode(jnp.array(part)) for part in np.split(held, 8)])


def path_of_differences(clips):
    """Describe how the place of the change between frames moves: velocities, spreads and turn."""
    change = np.abs(np.diff(clips, axis=1)).sum(-1)
    side = clips.shape[2]
    turns = np.exp(2j * np.pi * np.arange(side) / side)
    across = (change.sum(2) * turns).sum(-1)  # the circular mean: the canvas has no edges
    down = (change.sum(3) * turns).sum(-1)
    vx, vy = (np.angle(z[:, 1:] * z[:, :-1].conj()) for z in (across, down))
    turn = (vx[:, :-1] * vy[:, 1:] - vy[:, :-1] * vx[:, 1:]).mean(1)
    described = [vx.mean(1), vy.mean(1), vx.std(1), vy.std(1), turn]
    described = np.stack(described, axis=1)
    return (described / described.std(0)).astype(np.float32)


def test_an_encoder_of_one_frame_is_at_chance_on_motion(sets):
    found = accuracies(one_frame, sets)
    assert found["static"] > 0.9
    assert abs(found["dynamic"] - CHANCE) < NOISE


def test_an_encoder_of_the_path_of_differences_is_at_chance_on_appearance(sets):
    found = accuracies(path_of_differences, sets)
    assert found["dynamic"] > 0.9
    assert abs(found["static"] - CHANCE) < NOISE
