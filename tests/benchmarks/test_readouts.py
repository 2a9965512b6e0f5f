import dataclasses

import numpy as np
import pytest

from benchmarks import readouts
from configs import egogestar
from vrl_jax import config, pretrained
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.probe_suite import ProbeConfig

FRAMES = 12


def make_clips(labels, rng):
    """Return clips in which a bright patch flickers early (class 0) or late (class 1)."""
    clips = rng.integers(0, 8, (len(labels), FRAMES, 36, 48, 3), np.uint8)
    for clip, late in zip(clips, labels, strict=True):
        clip[1 + 5 * late : 6 + 5 * late : 2, 10:20, 10:20] = 250  # six changes either way
    return clips


@pytest.fixture(scope="module")
def probe():
    rng = np.random.default_rng(0)
    labels = [np.arange(24) % 2, np.arange(16) % 2]
    parts = [readouts.Part(make_clips(each, rng), each, None) for each in labels]
    settings = LinearProbe((0.01,), (0.0,), steps=60)
    experiment = dataclasses.replace(
        config.build(egogestar.get_config("simclr")),
        encoder=Tiny(widths=(4, 4), strides=(4, 2)),
        evaluate=ProbeConfig(linear=settings),
    )
    return readouts.Probe(experiment, "order", 2, tuple(parts))


def test_an_order_of_events_is_read_in_order_alone(probe):
    values = dict(readouts.measure_pixels(probe))
    ordered = [value for name, value in values.items() if "segments" in name]
    mean = [value for name, value in values.items() if "mean over time" in name]
    assert len(values) == 10 and len(mean) == 2
    assert min(ordered) == 1.0 and max(mean) < 0.9


def test_feature_maps_have_a_row_for_all_that_is_left_out(probe):
    encoder = probe.experiment.encoder
    model = pretrained.init_untrained(encoder, probe.experiment.augment, FRAMES)
    cells = readouts.encode_cells(model, probe.parts[1].clips[:5])
    assert cells.shape == (5, FRAMES, readouts.GRID**2, encoder.dim)
    features = model(model.prepare(probe.parts[1].clips[:5]))
    np.testing.assert_allclose(cells.mean(2), features.frames, rtol=1e-4, atol=1e-5)
    values = readouts.measure_features(probe, model)
    assert len(values) == 8 and all(0 <= value <= 1 for value in values.values())
    assert values["changes, 4 x 4 cells, 6 segments"] == 1.0


def test_the_central_square_is_cut_from_every_frame():
    clips = np.arange(2 * 3 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 3, 4, 6, 3)
    np.testing.assert_array_equal(readouts.center(clips), clips[:, :, :, 1:5])
