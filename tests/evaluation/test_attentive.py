"""The attentive probe: values by explicit loops, what it reads, what it refuses."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.evaluation.test_contract import restored
from tests.evaluation.test_evaluation_run import ENCODER, Split
from vrl_jax import config
from vrl_jax.augment.clip_views import Augment, center_view
from vrl_jax.data.frame_sampling import Sampling, uniform_clips
from vrl_jax.encoders.layers import pool_features
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.evaluation.protocols.attentive import Attentive
from vrl_jax.evaluation.recipes import published_recipe
from vrl_jax.probes import result_files
from vrl_jax.probes.classifier_heads import AttentiveHead, LinearHead, time_positions
from vrl_jax.train.optim import AdamW

SMALL = Attentive(
    test=EvalInput(Sampling(4, 1, 2), (18, 24), 16),
    train=TrainInput(
        Sampling(4, 1, 1), (18, 24), Augment(size=16, flip=0.0, jitter=0.0, gray=0.0, blur=0.0)
    ),
    optim=AdamW(),
    epochs=1.0,
    batch=8,
    heads=2,
)
JOINED = replace(
    SMALL,
    train=replace(SMALL.train, sampling=Sampling(4, 1, 2)),
    optim=AdamW(0.05, warmup=0.0),
    epochs=4.0,
    join_clips=True,
)
DATA = Split(train_videos=16, test_videos=16, frames=12)


def init(head, inputs, seed=0):
    return jax.jit(head.init, static_argnums=2)(jax.random.key(seed), inputs, False)


def score(head, weights, inputs):
    return jax.jit(head.apply, static_argnums=2)(weights, inputs, False)


# Values


def layer_norm(x, p):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * p["scale"] + p["bias"]


def dense(x, p):
    inputs, outputs = p["kernel"].shape
    rows = [sum(x[i] * p["kernel"][i, j] for i in range(inputs)) for j in range(outputs)]
    return np.array(rows) + p.get("bias", 0)


def gelu(x):
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def attend(reader, tokens, p, heads):
    """Return one vector's attention to tokens, head by head."""
    query = dense(reader, p["query"])
    keys = [dense(token, p["key"]) for token in tokens]
    values = [dense(token, p["value"]) for token in tokens]
    size = len(query) // heads
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        logits = [query[part] @ key[part] / math.sqrt(size) for key in keys]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        out.append(sum(w * v[part] for w, v in zip(weights, values, strict=True)) / sum(weights))
    return np.concatenate(out)


def block(tokens, p, heads, query=None):
    normed = [layer_norm(token, p["attention_norm"]) for token in tokens]
    if query is None:
        updates = [dense(attend(n, normed, p, heads), p["out"]) for n in normed]
        rows = [x + update for x, update in zip(tokens, updates, strict=True)]
    else:
        rows = [query + attend(query, normed, p, heads)]
    return [
        x + dense(gelu(dense(layer_norm(x, p["mlp_norm"]), p["expand"])), p["contract"])
        for x in rows
    ]


def by_loops(tokens, params, head):
    """Return the logits of one video's tokens [t s d]."""
    rows = []
    for time, places in enumerate(tokens):
        for token in places:
            if "project" in params:
                token = dense(token, params["project"])
            if head.time_positions:
                token = layer_norm(token, {"scale": 1, "bias": 0})
                count = len(token) // 2
                for i in range(count):
                    angle = time / 10000 ** (i / count)
                    token[i] += math.sin(angle)
                    token[count + i] += math.cos(angle)
            rows.append(token)
    for number in range(1, head.depth):
        rows = block(rows, params[f"block{number}"], head.heads)
    (pooled,) = block(rows, params["pool"], head.heads, params["query"][0])
    if head.final_norm:
        pooled = layer_norm(pooled, params["norm"])
    return dense(pooled, params["classifier"]["Dense_0"])


@pytest.mark.parametrize(
    "head",
    [
        AttentiveHead(3, heads=2),
        AttentiveHead(3, heads=1, final_norm=True),
        AttentiveHead(3, depth=3, heads=4, width=4, time_positions=True),
    ],
    ids=["one-block", "final-norm", "three-blocks"],
)
def test_logits_are_those_of_explicit_loops(rng, head):
    tokens = rng.normal(size=(2, 3, 2, 6)).astype(np.float32)
    params = jax.device_get(init(head, tokens)["params"])
    params = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), params)
    logits = score(head, {"params": params}, tokens)
    exact = jax.tree.map(lambda p: np.array(p, np.float64), params)
    for video, row in zip(np.array(tokens, np.float64), logits, strict=True):
        np.testing.assert_allclose(row, by_loops(video, exact, head), rtol=1e-4, atol=1e-4)


def test_weights_start_as_in_the_released_code(rng):
    head = AttentiveHead(3, depth=4, heads=4)
    tokens = np.zeros((1, 2, 2, 64), np.float32)
    params = jax.device_get(init(head, tokens)["params"])
    scales = {"block1": 1, "block2": 2, "block3": 3, "pool": 3}
    for name, number in scales.items():
        stds = {"query": 0.02, "expand": 0.02, "contract": 0.02 / (2 * number) ** 0.5}
        for layer, std in stds.items():
            kernel = params[name][layer]["kernel"]
            assert kernel.std() == pytest.approx(std, rel=0.05), (name, layer)
            assert not params[name][layer]["bias"].any()
    assert "out" in params["block1"] and "out" not in params["pool"]
    assert params["query"].shape == (1, 64) and 0.01 < params["query"].std() < 0.03
    alone = jax.device_get(init(AttentiveHead(3, heads=4), tokens)["params"])
    assert set(alone) == {"query", "pool", "classifier"}
    assert alone["pool"]["contract"]["kernel"].std() == pytest.approx(0.02 / 2**0.5, rel=0.05)


# What it reads


def order_of_patterns(rng, positions: bool):
    """Return tokens [64 2 1 8] of two patterns in either order, and which came first."""
    patterns, labels = rng.normal(size=(2, 8)), rng.integers(2, size=64)
    tokens = np.stack([patterns[[label, 1 - label]] for label in labels])[:, :, None]
    tokens = tokens + 0.01 * rng.normal(size=tokens.shape)
    if positions:
        tokens = tokens + time_positions(2, 8)[:, None]
    return tokens.astype(np.float32), labels


def fit(head, inputs, labels, steps=150):
    """Return the accuracy after training on all examples."""
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(inputs):
        def loss(weights):
            logits = head.apply(weights, inputs, False)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(_, carry):
            weights, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weights), state)
            return optax.apply_updates(weights, updates), state

        weights = head.init(jax.random.key(0), inputs, False)
        weights, _ = jax.lax.fori_loop(0, steps, step, (weights, optimizer.init(weights)))
        return head.apply(weights, inputs, False)

    return (np.argmax(train(inputs), axis=-1) == labels).mean()


def test_it_reads_an_order_that_the_mean_of_tokens_does_not_have(rng):
    tokens, labels = order_of_patterns(rng, positions=True)
    assert fit(AttentiveHead(2, heads=2), tokens, labels) == 1.0
    assert fit(LinearHead(2), tokens.mean((1, 2)), labels) < 0.75


def test_order_is_read_from_positions_only(rng):
    tokens, labels = order_of_patterns(rng, positions=False)
    assert fit(AttentiveHead(2, heads=2, time_positions=True), tokens, labels) == 1.0
    for depth in (1, 2):
        head = AttentiveHead(2, depth=depth, heads=2)

        @jax.jit
        def both_orders(tokens, head=head):
            weights = head.init(jax.random.key(3), tokens, False)
            return [head.apply(weights, each, False) for each in (tokens, tokens[:, ::-1])]

        forward, backward = both_orders(tokens)
        np.testing.assert_allclose(forward, backward, atol=1e-5)
        assert np.std(forward) > 1e-4


def test_tokens_are_those_of_the_stage(rng):
    maps = [
        rng.normal(size=(2, 3, side, side, width)).astype(jnp.bfloat16)
        for side, width in ((4, 5), (2, 6))
    ]
    read = lambda maps, **how: replace(SMALL, **how).head_inputs(pool_features(maps))  # noqa: E731
    read = jax.jit(read, static_argnames=("stage", "tokens"))
    last = read(maps)
    assert last.shape == (2, 3, 4, 6) and last.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(last)[:, :, 1], maps[1][:, :, 0, 1].astype(np.float32))
    first = read(maps, stage=0)
    assert first.shape == (2, 3, 16, 5)
    frames = read(maps, tokens="frames")
    assert frames.shape == (2, 3, 1, 6)
    features = jax.jit(pool_features)(maps)
    np.testing.assert_allclose(np.squeeze(frames, 2), features.frames, atol=1e-6)


def test_tokens_of_all_clips_of_a_video_are_joined(rng):
    maps = [rng.normal(size=(4, 3, 2, 2, 6)).astype(np.float32)]
    features = jax.jit(pool_features)(maps)
    joined = np.asarray(jax.jit(JOINED.head_inputs)(features))
    assert joined.shape == (2, 3, 8, 6)
    for video in range(2):
        for time in range(3):
            clips = [maps[0][2 * video + clip, time].reshape(4, 6) for clip in range(2)]
            np.testing.assert_array_equal(joined[video, time], np.concatenate(clips))
    frames = jax.jit(replace(JOINED, tokens="frames").head_inputs)(features)
    expected = np.asarray(features.frames).reshape(2, 2, 3, 6).swapaxes(1, 2)
    np.testing.assert_allclose(frames, expected, atol=1e-6)


@pytest.mark.slow
def test_probabilities_are_those_of_all_clips_by_hand(tmp_path, monkeypatch):
    banks, summarise = [], result_files.top_accuracies

    def record(name, bank, label):
        banks.append(bank)
        return summarise(name, bank, label)

    monkeypatch.setattr(result_files, "top_accuracies", record)
    evaluation = Evaluation(DATA, JOINED, label="static", encoder=ENCODER, splits=(1,))
    run = EvaluationRun(evaluation, tmp_path, quiet=True)
    assert run()
    ((task,),) = run._tasks
    clips = []
    for video in task.test.videos:
        with video.media.open() as reader:
            frames = uniform_clips(reader.num_frames, reader.fps, JOINED.test.sampling)
            clips += list(reader.read(frames, JOINED.test.resize))
    model = task.model
    encode = jax.jit(lambda clips: model(center_view(clips, model.augment)).stages[-1])
    maps = jax.device_get(encode(np.stack(clips)))
    assert maps.shape == (32, 4, 2, 2, 8)
    pairs = zip(maps[::2], maps[1::2], strict=True)
    tokens = np.stack([np.concatenate(pair, axis=1) for pair in pairs]).reshape(16, 4, 8, 8)
    weights = {"params": restored(task.folder.checkpoints)["params"]["head"]}
    logits = score(JOINED.head(len(task.test.classes["static"])), weights, tokens)
    (bank,) = banks
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(bank.features, expected, rtol=1e-4)
    assert np.ptp(bank.features, axis=0).max() > 1e-3


def test_positions_are_sines_and_cosines_of_the_time():
    waves = np.asarray(time_positions(3, 5))
    assert waves.shape == (3, 5) and not waves[:, 4].any()
    np.testing.assert_allclose(waves[2, :4], np.r_[np.sin([2, 0.02]), np.cos([2, 0.02])], atol=1e-6)


def test_dropout_and_normalisation_act_on_the_pooled_feature(rng):
    tokens = rng.normal(size=(8, 2, 2, 4)).astype(np.float32)
    head = AttentiveHead(3, heads=2, dropout=0.5, normed=True)
    weights = init(head, tokens)
    assert set(weights["batch_stats"]["classifier"]) == {"BatchNorm_0"}

    @jax.jit
    def train(tokens, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return head.apply(weights, tokens, True, rngs=rngs, mutable=["batch_stats"])[0]

    trained = [train(tokens, seed) for seed in range(2)]
    assert not np.allclose(*trained)
    assert np.array_equal(*(score(head, weights, tokens) for _ in range(2)))


# What it refuses


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tokens": "some"}, "tokens must be one of 'all', 'frames', got 'some'"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"width": -2}, "width must be at least 0, got -2"),
        ({"width": 6, "heads": 4}, "heads must divide the width 6, got 4"),
        ({"dropout": 1.5}, r"dropout must lie in \[0, 1\], got 1.5"),
        ({"join_clips": True}, "train.sampling.clips must equal test.sampling.clips, 2, where"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"heads": 3}, "protocol.heads must divide the width of the tokens, 8, got 3: pass other"),
        ({"stage": 0, "heads": 8}, "the width of the tokens, 4, got 8"),
        ({"stage": 2}, r"protocol.stage must lie in \[-2, 1\], since the encoder has 2"),
        ({"stage": -3}, "got -3"),
        ({"batch": 3}, "protocol.batch must be a multiple of the 8 devices, got 3"),
    ],
)
def test_what_the_encoder_cannot_give_is_refused_before_it_starts(tmp_path, changes, message):
    evaluation = Evaluation(DATA, replace(SMALL, **changes), label="static", encoder=ENCODER)
    with pytest.raises(ValueError, match=message):
        EvaluationRun(evaluation, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_width_is_projected_and_needs_no_divisor_of_the_encoder_s(tmp_path):
    protocol = replace(SMALL, heads=3, width=9)
    EvaluationRun(Evaluation(DATA, protocol, label="static", encoder=ENCODER), tmp_path)


# Published recipes

# V-JEPA: arXiv 2404.08471, appendix D.1; V-JEPA 2: arXiv 2506.09985, table 15. The modules of the
# recipes name the source of each number.
PINNED = ["vjepa_attentive", "vjepa2_attentive", "vjepa2_code_attentive"]
COMMON = {
    "test.sampling.frames": 16,
    "test.sampling.stride": 4,
    "test.sampling.fps": 0.0,
    "test.sampling.layout": "independent",
    "test.crops.positions": "three",
    "test.crops.share": 1.0,
    "train.repeats": 1,
    "train.strong.views": 1,
    "train.strong.rand": "",
    "train.strong.erase": 0.0,
    "train.augment.crop": "resized",
    "train.augment.area": (0.08, 1.0),
    "train.augment.aspect": (0.75, 4 / 3),
    "train.augment.jitter": 0.0,
    "train.augment.gray": 0.0,
    "train.augment.blur": 0.0,
    "train.augment.reverse": 0.0,
    "optim.kind": "vrl_jax.train.optim:AdamW",
    "optim.learning_rate": 1e-3,
    "optim.reference_batch": 0,
    "optim.warmup": 0.0,
    "optim.drops": (),
    "optim.weight_decay": 0.01,
    "epochs": 20.0,
    "batch": 256,
    "heads": 16,
    "width": 0,
    "tokens": "all",
    "stage": -1,
    "join_clips": True,
    "time_positions": False,
    "final_norm": False,
    "dropout": 0.0,
    "normed": False,
}
VJEPA = {
    **COMMON,
    "test.sampling.clips": 8,
    "test.size": 224,
    "test.resize": (224, 299),
    "train.resize": (256, 341),
    "train.augment.flip": 0.5,
    "optim.decay_all": False,
    "optim.clip_norm": 1.0,
    "depth": 1,
}
VJEPA2 = {
    **COMMON,
    "test.sampling.clips": 8,
    "test.size": 256,
    "test.resize": (256, 341),
    "train.resize": (288, 384),
    "train.augment.flip": 0.0,
    "optim.decay_all": True,
    "optim.clip_norm": 0.0,
    "depth": 4,
}
RELEASED = {"train.strong.rand": "rand-m7-n4-mstd0.5-inc1", "train.strong.erase": 0.25}
DIVING48 = {
    "test.sampling.frames": 32,
    "test.sampling.stride": 2,
    "test.sampling.clips": 4,
    "optim.learning_rate": 3e-4,
    "optim.weight_decay": 0.8,
    "epochs": 100.0,
    "batch": 128,
}
TABLE = {
    ("vjepa", "k400"): VJEPA,
    ("vjepa", "ssv2"): {**VJEPA, "test.sampling.clips": 2, "train.augment.flip": 0.0},
    ("vjepa2", "k400"): VJEPA2,
    ("vjepa2", "ssv2"): {**VJEPA2, "test.sampling.clips": 2},
    ("vjepa2", "diving48"): {**VJEPA2, **DIVING48},
    ("vjepa2_code", "k400"): {**VJEPA2, **RELEASED},
    ("vjepa2_code", "ssv2"): {**VJEPA2, **RELEASED, "test.sampling.clips": 2},
    ("vjepa2_code", "diving48"): {**VJEPA2, **RELEASED, **DIVING48},
}


@pytest.mark.parametrize("paper, benchmark", TABLE)
def test_the_recipes_are_those_of_the_papers(paper, benchmark):
    protocol = published_recipe(paper, "attentive")(benchmark)
    tree = config.describe(protocol).to_dict()

    def value(path):
        leaf = tree
        for key in path.split("."):
            leaf = leaf[key]
        return leaf

    expected = TABLE[paper, benchmark]
    assert {path: value(path) for path in expected} == expected
    assert protocol.train.sampling == protocol.test.sampling
    assert protocol.train.augment.size == protocol.test.size


def test_each_benchmark_of_the_papers_is_in_the_table():
    for paper in ("vjepa", "vjepa2", "vjepa2_code"):
        recipe = published_recipe(paper, "attentive")
        assert set(recipe.benchmarks) == {name for other, name in TABLE if other == paper}
        assert replace(recipe("k400"), published="") == replace(recipe(), published="")
