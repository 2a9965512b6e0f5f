"""Rendered videos: one frame carries no motion, a path carries no appearance.

The report on encoders whose features are known.
"""

import json
import zlib
from dataclasses import replace

import jax
import numpy as np
import pytest

from vrl_jax.data.data_loader import eval_batches
from vrl_jax.data.datasets.synthetic import MOTIONS, Synthetic
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import VideoList
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.factors.factor_report import report_factors
from vrl_jax.factors.label_accuracy import FactorConfig
from vrl_jax.probes.attentive_probe import AttentiveProbe
from vrl_jax.probes.linear_probe import LinearProbe, fit_probe

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
    (train, train_labels), (test, test_labels) = sets
    features = encode(train), encode(test)
    return {
        name: fit_probe(
            features[0],
            train_labels[name],
            features[1],
            test_labels[name],
            num_classes=CLASSES,
            settings=LinearProbe(),
        ).accuracy
        for name in train_labels
    }


def one_frame(clips):
    """Encode the middle frame, held for the whole clip."""
    frozen = np.repeat(clips[:, 8:9], 4, axis=1)
    encoder = Tiny(conv="native").module()
    variables = jax.jit(encoder.init, static_argnums=2)(jax.random.key(0), frozen[:1], False)
    encode = jax.jit(lambda variables, x: encoder.apply(variables, x, False).clip)
    return np.concatenate([encode(variables, part) for part in np.split(frozen, 8)])


def path_of_differences(clips, scaled=True):
    """Describe how the place of the change between frames moves: velocities, spreads and turn."""
    change = np.abs(np.diff(clips, axis=1)) @ np.ones(3, clips.dtype)
    side = clips.shape[2]
    turns = np.exp(2j * np.pi * np.arange(side) / side)
    across = (change.sum(2) * turns).sum(-1)  # the circular mean: the canvas has no edges
    down = (change.sum(3) * turns).sum(-1)
    vx, vy = (np.angle(z[:, 1:] * z[:, :-1].conj()) for z in (across, down))
    turn = (vx[:, :-1] * vy[:, 1:] - vy[:, :-1] * vx[:, 1:]).mean(1)
    described = [vx.mean(1), vy.mean(1), vx.std(1), vy.std(1), turn]
    described = np.stack(described, axis=1)
    return (described / (described.std(0) if scaled else 1)).astype(np.float32)


def test_an_encoder_of_one_frame_is_at_chance_on_motion(sets):
    accuracy = accuracies(one_frame, sets)
    assert accuracy["static"] > 0.9
    assert abs(accuracy["dynamic"] - CHANCE) < NOISE


def test_an_encoder_of_the_path_of_differences_is_at_chance_on_appearance(sets):
    accuracy = accuracies(path_of_differences, sets)
    assert accuracy["dynamic"] > 0.9
    assert abs(accuracy["static"] - CHANCE) < NOISE


FEW, SHAPES, WIDTH = 128, 4, 12
QUICK = FactorConfig(linear=LinearProbe(learning_rates=(0.1,), weight_decays=(0.001,), steps=100))
BLIND = 3 * np.sqrt(1 / SHAPES * (1 - 1 / SHAPES) / FEW)  # three standard deviations


def padded(*parts):
    """Join features and fill them up with zeros: one width, one compiled probe."""
    joined = np.concatenate(parts, axis=1).astype(np.float32)
    return np.pad(joined, ((0, 0), (0, WIDTH - joined.shape[1])))


def order_free(clips):
    """Encode mean and spread of each colour: integer sums, so that order cannot matter at all."""
    values = clips.reshape(len(clips), -1, 3).astype(np.float64)
    ones = np.ones(values.shape[1])
    return padded(*[ones @ powers / len(ones) for powers in (values, values**2)])


def displacement(clips):
    """Encode how far the differences between frames move; all zero where nothing does."""
    return padded(path_of_differences(clips / np.float32(255), scaled=False)[:, :2])


def border(clips):
    """Encode the median colours of the four corners: what moves is not long in any."""
    corners = clips[:, :, :: clips.shape[2] - 1, :: clips.shape[3] - 1]
    return padded(np.median(corners, axis=1).reshape(len(clips), -1))


class Reads:
    """Batches of sources, each read once for all reports."""

    def __init__(self):
        self.batches = {}

    def __call__(self, source):
        listed = isinstance(source, VideoList)
        key = tuple(video.media for video in source.videos) if listed else source
        if key not in self.batches:
            batches = eval_batches(source, Sampling(16, 1, 1), (32, 32), batch=64)
            self.batches[key] = list(batches)
        return self.batches[key]


@pytest.fixture(scope="module")
def reads():
    return Reads()


@pytest.fixture(scope="module")
def reports(reads):
    data, done = Synthetic(train_videos=FEW, test_videos=FEW, classes=SHAPES), {}

    def of(encode):
        if encode not in done:
            test = data.test()
            report = report_factors(
                encode,
                reads,
                data.train(),
                test,
                rows=64,
                config=QUICK,
                stamp={"commit": "c"},
                masks=test.masks(),
                twins=test.twins(),
            )
            done[encode] = {(r["name"], r["label"]): r for r in report.results}, report
        return done[encode]

    return of


def at_chance(result):
    return result["value"] < result["chance"] + BLIND


def test_layers_have_the_results_that_each_would_have_by_itself(reports, reads):
    data = Synthetic(train_videos=FEW, test_videos=FEW, classes=SHAPES)
    test = data.test()
    report = report_factors(
        lambda clips: np.concatenate([border(clips), displacement(clips)] * 2, axis=1),
        reads,
        data.train(),
        test,
        rows=64,
        config=replace(
            QUICK, conflict=True, intervals=True, attentive=AttentiveProbe(steps=100, width=32)
        ),
        stamp={},
        masks=test.masks(),
        twins=test.twins(),
        layers={"stage 0": WIDTH, "stage 1": WIDTH},
        tokens={"stage 0": (2, 2, WIDTH // 4), "stage 1": (1, 1, WIDTH)},
    )
    layered = {(r["layer"], r["name"], r["label"]): r for r in report.layers}
    assert len(layered) == len(report.layers)
    by_layer = {"stage 0": border, "stage 1": displacement}
    for layer, encode in by_layer.items():
        for (name, label), alone in reports(encode)[0].items():
            result = layered["" if name.startswith("floor/") else layer, name, label]
            assert result["value"] == alone["value"], (layer, name, label)
            if "accuracy" in alone["metric"]:
                low, high = result["interval"]
                assert low <= result["value"] <= high
    for result in report.results:
        assert (
            result["value"]
            == reports(displacement)[0].get((result["name"], result["label"]), result)["value"]
        )
    assert 1 <= layered["stage 1", "rank/effective", "clips"]["value"] <= 2  # two channels
    assert layered["stage 1", "conflict/moving", "dynamic"]["value"] > 0.9
    assert layered["stage 1", "conflict/still", "dynamic"]["value"] < 0.1
    assert layered["stage 0", "conflict/moving", "static"]["value"] < 0.8
    attentive = {
        (layer, label): layered[layer, "attentive/ordered", label]
        for layer in by_layer
        for label in ("static", "dynamic")
    }
    assert all(result["interval"] for result in attentive.values())
    assert attentive["stage 0", "static"]["value"] > 0.9
    assert attentive["stage 1", "dynamic"]["value"] > 0.9
    assert at_chance(attentive["stage 0", "dynamic"])
    assert at_chance(attentive["stage 1", "static"])


def test_an_order_free_encoder_is_static_and_no_order_matters(reports):
    by_name, _ = reports(order_free)
    assert by_name["order/ordered", "static"]["value"] > 0.9
    for name in ("order/shuffled", "order/reversed"):
        for label in ("static", "dynamic"):
            assert by_name[name, label]["value"] == by_name["order/ordered", label]["value"]
            assert not any(by_name[name, label]["drop_per_class"].values())
    assert at_chance(by_name["order/ordered", "dynamic"])
    assert by_name["arrow/forward-backward", "direction"]["value"] == 0.5  # one of each two clips
    for pairs in ("restyled", "known factors"):
        assert by_name["units/static", pairs]["value"] == 6 / WIDTH


def test_an_encoder_of_displacement_is_dynamic_and_wants_order(reports):
    by_name, _ = reports(displacement)
    assert by_name["order/ordered", "dynamic"]["value"] > 0.9
    assert at_chance(by_name["order/ordered", "static"])
    for name in ("order/shuffled", "order/frozen"):
        assert at_chance(by_name[name, "dynamic"])
    reverse = by_name["order/reversed", "dynamic"]
    assert reverse["value"] < 0.1 and reverse["drop"] > 0.8  # right is left, up is down
    assert set(reverse["drop_per_class"]) == set(MOTIONS[:SHAPES])
    # With each motion goes its reverse: nothing tells the film's direction.
    assert abs(by_name["arrow/forward-backward", "direction"]["value"] - 0.5) < BLIND
    scuba, scufo = by_name["scuba/scuba", "dynamic"], by_name["scuba/scufo", "dynamic"]
    assert scuba["value"] > 0.9 and at_chance(scufo)
    contrasted = by_name["scuba/contrasted", "dynamic"]["value"]
    assert scuba["value"] - scufo["value"] <= contrasted <= scuba["value"]
    assert scuba["background"] != by_name["scuba-stills/scuba", "dynamic"]["background"]


def test_an_encoder_of_the_background_fails_without_it(reports):
    by_name, _ = reports(border)
    assert by_name["order/ordered", "static"]["value"] > 0.9
    assert by_name["order/frozen", "static"]["value"] > 0.6  # the shape may cover a corner
    assert at_chance(by_name["scuba/scuba", "static"])
    # The still is one of another class, which is what it says then.
    assert by_name["scuba-stills/scuba", "static"]["value"] < 0.1
    assert by_name["order/ordered", "static"]["chance"] > 0.2


def test_floors_are_found_and_what_is_missing_is_said(reports):
    by_name, report = reports(order_free)
    assert by_name["floor/appearance", "static"]["value"] > 1 / SHAPES + BLIND
    assert at_chance(by_name["floor/appearance", "dynamic"])
    assert report.skipped == {
        "koopman": "there are no frame features",
        "leakage": "there are no embeddings besides the features",
    }
    assert json.loads(json.dumps(report.results)) == report.results
    assert all(result["commit"] == "c" for result in report.results)


@pytest.mark.parametrize("encode, low, high", [(order_free, 0.5, 0.5), (displacement, 0.95, 1)])
def test_the_arrow_of_time_shows_where_motions_have_a_direction(reads, encode, low, high):
    data = Synthetic(train_videos=FEW, test_videos=FEW, classes=SHAPES)

    def onward(source):
        videos = (source[number] for number in range(len(source)))
        chosen = tuple(v for v in videos if MOTIONS[v.labels["dynamic"]] in ("right", "up"))
        return VideoList((chosen * SHAPES)[: len(source)], source.classes)  # nothing new compiles

    train, test = onward(data.train()), onward(data.test())
    measured = report_factors(encode, reads, train, test, rows=64, config=QUICK, stamp={}).results
    (arrow,) = [result for result in measured if result["name"] == "arrow/forward-backward"]
    assert low <= arrow["value"] <= high and arrow["chance"] == 0.5


def channels(clips):
    """Encode one channel of colour, two of signed motion, one of neither, and empty ones."""
    noise = [
        np.random.default_rng(zlib.crc32(np.ascontiguousarray(clip))).random() for clip in clips
    ]
    colour = clips[..., 0].mean((1, 2, 3))
    return padded(displacement(clips)[:, :2], np.stack([colour, noise], axis=1))


@pytest.mark.parametrize("pairs", ["restyled", "known factors"])
def test_units_are_counted_as_what_they_are(reports, pairs):
    by_name, report = reports(channels)
    shares = [by_name[f"units/{kind}", pairs]["value"] for kind in ("static", "dynamic", "joint")]
    assert shares == pytest.approx([1 / WIDTH, 2 / WIDTH, 0])
    assert by_name["units/residual", pairs]["value"] == pytest.approx(1 - 3 / WIDTH)
    static, dynamic = (report.arrays[f"units/{pairs}/{kind}"] for kind in ("static", "dynamic"))
    assert static[2] > 0.9 and (dynamic[:2] > 0.6).all()
    assert np.abs([static[3], dynamic[3]]).max() < 4 / np.sqrt(FEW)
    assert not static[4:].any() and not dynamic[4:].any()
