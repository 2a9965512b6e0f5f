import functools

import jax
import numpy as np
import pytest

from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.byol import BYOL
from vrl_jax.losses import local_contrast, shared_activations
from vrl_jax.methods import sdc_network
from vrl_jax.methods.sdc import SDC, STREAMS, append_differences, codebook_params, concept_contrasts
from vrl_jax.methods.sdc_network import KINDS, ConceptAttention, select_scores
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6), strides=(2, 2), conv="native")
HORIZON = TrainLength(steps=100, steps_per_epoch=5)
SMALL = {"dim": 5, "concepts": 12, "queue": 8}


@pytest.fixture(scope="module")
def built():
    return build()


def build(**settings):
    method = SDC(**{**SMALL, **settings}).build(ENCODER, None, HORIZON)
    clips = np.random.default_rng(0).normal(size=(4, 4, 6, 8, 8, 3)).astype(np.float32)
    params, state = jax.jit(method.init)(jax.random.key(1), clips)
    jitted = method._replace(loss=jax.jit(method.loss), update=jax.jit(method.update))
    return jitted, *jax.device_get((params, state)), clips


def terms(built, step):
    method, params, state, clips = built
    value, (aux, metrics) = jax.device_get(
        method.loss(params, state, clips, jax.random.key(2), np.int32(step))
    )
    return value, metrics, aux


def test_the_local_contrast_begins_with_its_epoch_and_nothing_else_changes(built):
    before, early, _ = terms(built, 49)
    after, late, _ = terms(built, 50)
    assert early["loss/local"] == 0 and late["loss/local"] > 0
    assert after - before == pytest.approx(late["loss/local"], rel=1e-4)
    assert all(early[name] == late[name] for name in early if name != "loss/local")


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_left_out_takes_its_views_and_losses_along(built, stream):
    (left_out,) = set(STREAMS) - {stream}
    method = SDC(streams=(stream,), **SMALL).build(ENCODER, None, HORIZON)
    key, clips, step = jax.random.key(0), built[3], np.int32(60)
    params, state = jax.eval_shape(method.init, key, clips)
    _, (aux, metrics) = jax.eval_shape(method.loss, params, state, clips, key, step)
    assert len(method.views) == (4 if stream == "still" else 2)
    _, whole, _ = terms(built, 60)
    assert {*whole} - {*metrics} == {f"loss/{left_out}"}
    assert {*codebook_params(params["network"])} == {"codebook_clip", f"codebook_{stream}"}
    assert aux["losses"]["scores"].shape == (4, 4, 24)
    assert state["losses"]["queue"].shape == (8, 4, 24)


def test_streams_are_named():
    with pytest.raises(ValueError, match="streams must be one of"):
        SDC(streams=("flow",))


def test_the_total_is_the_weighted_sum(built):
    value, metrics, _ = terms(built, 60)
    shares = {"loss/entropy": 0.1}
    expected = sum(shares.get(name, 1.0) * x for name, x in metrics.items())
    assert value == pytest.approx(expected, rel=1e-5)


def test_the_queue_takes_part_from_its_epoch_on(built):
    _, early, _ = terms(built, 4)
    _, late, _ = terms(built, 5)
    assert early["loss/alignment"] != pytest.approx(late["loss/alignment"], rel=1e-3)


def test_codebooks_rest_for_an_epoch_and_stay_of_unit_length(built):
    method, params, state, _ = built
    _, _, aux = terms(built, 4)
    moved = {**params["network"]}
    for name in codebook_params(moved):
        moved[name] = 1.5 * moved[name] + 0.1
    modified = {**params, "network": moved}
    for step in (4, 5):
        after, _ = method.update(modified, state, aux, np.int32(step))
        for name, rows in codebook_params(after["network"]).items():
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
            rested = np.allclose(rows, params["network"][name], atol=1e-6)
            assert rested == (step == 4)


def test_the_queue_ends_with_the_newest_scores(built):
    method, params, state, clips = built
    _, _, aux = terms(built, 0)
    _, after = jax.device_get(method.update(params, state, aux, np.int32(0)))
    queue = after["losses"]["queue"]
    assert queue.shape == (8, 6, 24)
    np.testing.assert_array_equal(queue[-4:], aux["losses"]["scores"])
    np.testing.assert_array_equal(queue[:4], state["losses"]["queue"][4:])


def test_contrasts_cross_clips_and_weigh_double_where_there_are_four(rng):
    def info(q, k):
        q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
        logits = q @ k.T / 0.07
        logits -= logits.max(1, keepdims=True)
        return -np.mean(np.diag(logits) - np.log(np.exp(logits).sum(1)))

    names = ("clip/clip", "clip/still", "still/clip", "clip/difference", "difference/clip")
    embeddings = {
        f"contrast/{name}": rng.normal(size=(5, 2, 3)).astype(np.float32) for name in names
    }
    got = jax.jit(lambda embeddings: concept_contrasts(embeddings, STREAMS, 0.07))(embeddings)
    v = embeddings["contrast/clip/clip"]
    assert float(got["clip"]) == pytest.approx(
        (info(v[:, 0], v[:, 1]) + info(v[:, 1], v[:, 0])) / 2, rel=1e-4
    )
    for kind in ("still", "difference"):
        a, b = embeddings[f"contrast/clip/{kind}"], embeddings[f"contrast/{kind}/clip"]
        pairs = [(a[:, 0], b[:, 1]), (a[:, 1], b[:, 0]), (b[:, 0], a[:, 1]), (b[:, 1], a[:, 0])]
        four = [info(q, k) for q, k in pairs]
        assert float(got[kind]) == pytest.approx(2 * np.mean(four), rel=1e-4)


def test_differences_telescope_and_vanish_on_still_views(rng):
    append = jax.jit(append_differences, static_argnames="wrap")
    views = rng.normal(size=(2, 4, 5, 3, 3, 3)).astype(np.float32)
    whole = np.array(append(views, wrap=True))
    np.testing.assert_array_equal(whole[:, :4], views)
    for t in range(5):
        np.testing.assert_allclose(
            whole[:, 4:, t], views[:, :2, t] - views[:, :2, t - 1], atol=1e-6
        )
    np.testing.assert_allclose(whole[:, 4:].sum(2), 0, atol=1e-5)
    assert not np.any(np.array(append(views, wrap=False))[:, 4:, 0])
    still = np.repeat(views[:, :, :1], 5, axis=2)
    assert not np.any(np.array(append(still, wrap=True))[:, 4:])


def test_still_views_hold_one_frame_the_same_in_both_clips():
    number = np.arange(2 * 6).reshape(2, 6)
    videos = np.broadcast_to(number[None, :, :, None, None, None], (32, 2, 6, 8, 8, 3))
    plain = Augment(
        size=8, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0,
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    method = SDC(**SMALL).build(ENCODER, None, HORIZON)
    draw = jax.jit(functools.partial(make_views, views=method.views, augment=plain))
    views = np.array(draw(jax.random.key(0), videos.astype(np.uint8)))
    numbers = np.round(255 * views[..., 0, 0, 0]).astype(int)
    np.testing.assert_array_equal(numbers[:, 0], np.broadcast_to(number[0], (32, 6)))
    np.testing.assert_array_equal(numbers[:, 1], np.broadcast_to(number[1], (32, 6)))
    assert (numbers[:, 2:] == numbers[:, 2:, :1]).all()
    np.testing.assert_array_equal(numbers[:, 2, 0], numbers[:, 3, 0] - 6)
    assert set(numbers[:, 2, 0]) == set(range(6))


def attend(rng, tokens, concepts):
    """Return the attention, jitted, its variables, tokens and concepts."""
    attention = ConceptAttention(6)
    x = rng.normal(size=(2, tokens, 6)).astype(np.float32)
    templates = rng.normal(size=(concepts, 6)).astype(np.float32)
    variables = jax.device_get(jax.jit(attention.init)(jax.random.key(0), x, templates))
    return jax.jit(attention.apply), variables, x, templates


def test_attention_knows_its_symmetries(rng):
    apply, variables, x, templates = attend(rng, 7, 4)
    base = np.array(apply(variables, x, templates))
    np.testing.assert_allclose(np.linalg.norm(base, axis=-1), 1, rtol=1e-5)
    shuffled = apply(variables, x[:, ::-1], templates)
    np.testing.assert_allclose(shuffled, base, atol=1e-5)
    turned = apply(variables, x, templates[::-1])
    np.testing.assert_allclose(turned, base[:, ::-1], atol=1e-5)


def test_a_single_concept_gathers_all_places_alike(rng):
    apply, variables, x, templates = attend(rng, 7, 1)
    weights = variables["params"]

    def norm(x, name):
        x = np.array(x, np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * weights[name]["scale"] + weights[name]["bias"]

    values = norm(x, "norm_tokens") @ weights["value"]["kernel"]
    gathered = values.mean(1, keepdims=True) + templates
    hidden = np.maximum(
        norm(gathered, "norm") @ weights["inner"]["kernel"] + weights["inner"]["bias"], 0
    )
    gathered = gathered + hidden @ weights["outer"]["kernel"] + weights["outer"]["bias"]
    expected = gathered / np.linalg.norm(gathered, axis=-1, keepdims=True)
    np.testing.assert_allclose(apply(variables, x, templates), expected, atol=1e-4)


def test_the_local_term_is_the_contrast_of_what_was_found(built):
    _, params, state, clips = built
    _, metrics, _ = terms(built, 50)
    network = {"params": params["network"], "batch_stats": state["stats"]}
    net = SDC(**SMALL).network(ENCODER)

    @jax.jit
    def locate(network, clips):
        views = append_differences(clips, wrap=True)
        outputs, _ = net.apply(network, views, True, mutable=["batch_stats"])
        located = net.apply(network, outputs.features.stages[-1], method="locate")
        total = 0.0
        for kind in KINDS:
            relevant = select_scores(kind, outputs.projected[f"scores/{kind}"])
            mask = shared_activations(relevant[:, 0], relevant[:, 1])
            total += local_contrast(located[kind][:, 0], located[kind][:, 1], mask)
        return located, total

    located, total = locate(network, clips)
    assert located["still"].shape == (4, 2, 12, 6) and located["clip"].shape == (4, 2, 24, 6)
    assert metrics["loss/local"] == pytest.approx(float(total), rel=1e-3)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="SDC makes its own comparisons: .* None, got BYOL"):
        SDC().build(ENCODER, BYOL(), HORIZON)
    with pytest.raises(ValueError, match="method.queue, which holds .* at least 4, got 3"):
        build(queue=3)
    with pytest.raises(ValueError, match="concepts must be at least 10, got 4"):
        SDC(concepts=4)


def test_layers_are_normalised_with_the_epsilon_of_the_released_code():
    x = np.float32([[0.0, 0.004]])  # a spread of 0.002, where epsilon counts
    norm = sdc_network._layer_norm()
    got = norm.apply(norm.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(got, [np.array([-1, 1]) * 0.002 / np.sqrt(4e-6 + 1e-5)], rtol=1e-4)
