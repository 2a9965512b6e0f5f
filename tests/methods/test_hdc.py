import jax
import numpy as np
import pytest

from tests.methods.drawn import draw_weights, normal
from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.base import ProjectionHead
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.losses import nt_xent, nt_xent_steps
from vrl_jax.methods.hdc import HDC, TASKS, cosine_weights, retrieval_accuracy
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6, 8), strides=(2, 1, 1), conv="native")
HEADS = {"hidden": 8, "layers": 2, "norm": False}


def build(**settings):
    """Return a method with jitted functions, its parameters and state, and clips."""
    method = HDC(dim=5, **HEADS, **settings).build(ENCODER, None, TrainLength(10, 5))
    clips = normal(4, len(method.views), 6, 8, 8, 3)
    jitted = method._replace(loss=jax.jit(method.loss), update=jax.jit(method.update))
    return jitted, *draw_weights(method, clips), clips


@pytest.fixture(scope="module")
def built():
    return build()


def terms(method, params, state, clips):
    value, (_, metrics) = jax.device_get(
        method.loss(params, state, clips, jax.random.key(2), np.int32(0))
    )
    return value, metrics


LISTED = {"spatial_weights": (0.0, 1.0, 2.0), "temporal_weights": (3.0, 0.5, 0.0)}


@pytest.mark.parametrize(
    "settings, spatial, temporal",
    [
        ({}, (0.25, 0.5, 1), (0.25, 0.5, 1)),
        ({"weighting": "uniform", "steps": "all_steps"}, (1, 1, 1), (1, 1, 1)),
        ({"weighting": "measured", "steps": "flatten"}, (1, 1, 1), (1, 1, 1)),
        ({"weighting": "list", "share_heads": True, **LISTED}, (0, 1, 2), (3, 0.5, 0)),
        ({"steps": "pool", "share_heads": True}, (0.25, 0.5, 1), (0.25, 0.5, 1)),
        ({"steps": "pool", "levels": (-1,)}, (1,), (1,)),
        ({"tasks": ("spatial",)}, (0.25, 0.5, 1), ()),
        ({"tasks": ("temporal",), "share_heads": True}, (), (0.25, 0.5, 1)),
        ({"tasks": ("temporal",), "weighting": "measured"}, (), (1, 1, 1)),
    ],
    ids=str,
)
def test_every_variant_sums_its_weighted_terms(settings, spatial, temporal):
    value, metrics = terms(*build(**settings))
    weights = {"spatial": spatial, "temporal": temporal}
    losses = {f"loss/{task}{k}": w for task in weights for k, w in enumerate(weights[task])}
    assert {name for name in metrics if name.startswith("loss/")} == {*losses}
    assert value == pytest.approx(sum(w * metrics[name] for name, w in losses.items()), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "settings", [{}, {"share_heads": True}, {"weighting": "measured"}], ids=str
)
def test_a_task_left_out_takes_its_view_and_heads_along(task, settings):
    method = HDC(tasks=(task,), dim=5, **HEADS, **settings).build(ENCODER, None, TrainLength(10, 5))
    assert [view.clip for view in method.views] == [0, 0 if task == "spatial" else 1]
    key, clips = jax.random.key(0), np.zeros((4, 2, 6, 8, 8, 3), np.float32)
    params, state = jax.eval_shape(method.init, key, clips)
    _, (_, metrics) = jax.eval_shape(method.loss, params, state, clips, key, np.int32(0))
    (left_out,) = {*TASKS} - {task}
    assert not [name for name in (*metrics, *params["network"]) if left_out in name]


def test_the_terms_of_a_level_are_what_they_are_said_to_be(built):
    method, params, state, clips = built
    _, metrics = terms(method, params, state, clips)

    @jax.jit
    def compare(network, stats, clips):
        """Return spatial and temporal contrast of each level."""
        variables = {"params": network["encoder"], "batch_stats": stats["encoder"]}
        flat = clips.reshape(-1, *clips.shape[2:])
        features, _ = ENCODER.module().apply(variables, flat, True, mutable=["batch_stats"])
        head, pairs = ProjectionHead(dim=5, **HEADS), []
        for k, stage in enumerate(features.stages):
            steps = head.apply({"params": network[f"heads_spatial{k}"]}, stage.mean((2, 3)), True)
            whole = head.apply(
                {"params": network[f"heads_temporal{k}"]}, stage.mean((1, 2, 3)), True
            )
            steps, whole = steps.reshape(4, 3, 6, 5), whole.reshape(4, 3, 5)
            pairs.append(
                (nt_xent_steps(steps[:, 0], steps[:, 1]), nt_xent(whole[:, 0], whole[:, 2]))
            )
        return pairs

    for k, (spatial, temporal) in enumerate(compare(params["network"], state["stats"], clips)):
        assert float(metrics[f"loss/spatial{k}"]) == pytest.approx(float(spatial), rel=1e-3)
        assert float(metrics[f"loss/temporal{k}"]) == pytest.approx(float(temporal), rel=1e-3)


def test_a_level_without_weight_moves_no_head_but_its_stage_still_learns():
    method, params, state, clips = build(
        weighting="list", spatial_weights=(0.0, 0.0, 1.0), temporal_weights=(0.0, 0.0, 1.0)
    )
    slope = jax.jit(jax.grad(method.loss, has_aux=True))
    slopes, _ = slope(params, state, clips, jax.random.key(2), np.int32(0))
    slopes = jax.device_get(slopes["network"])
    for k in range(3):
        for task in ("spatial", "temporal"):
            moved = any(np.any(x) for x in jax.tree.leaves(slopes[f"heads_{task}{k}"]))
            assert moved == (k == 2)
    assert any(np.any(x) for x in jax.tree.leaves(slopes["encoder"]["stem"]))


def test_measured_weights_follow_the_cosines_without_gradient():
    cosines = np.array([[0.2, 0.1], [0.4, -0.3], [0.8, 0.5]], np.float32)
    weights = np.array(jax.jit(cosine_weights)(cosines))
    np.testing.assert_allclose(weights[:, 0], [0.25, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(weights[:, 1], [0.2, 0.1, 1.0], rtol=1e-6)
    assert not np.any(jax.jit(jax.grad(lambda c: cosine_weights(c).sum()))(cosines))
    method, params, state, clips = build(weighting="measured")
    _, (aux, metrics) = method.loss(params, state, clips, jax.random.key(2), np.int32(0))
    _, after = jax.device_get(method.update(params, state, aux, np.int32(0)))
    expected = 0.99 + 0.01 * float(metrics["cosine/temporal1"])
    assert after["losses"]["cosine"][1, 1] == pytest.approx(expected, rel=1e-5)


def test_identical_embeddings_give_ln(built):
    method, params, state, clips = built
    same = np.broadcast_to(clips[:1, :1], clips.shape)
    _, metrics = terms(method, params, state, same)
    losses = [x for name, x in metrics.items() if name.startswith("loss/")]
    np.testing.assert_allclose(losses, np.log(7), rtol=1e-4)


def test_share_found_counts_nearest_neighbours():
    found = jax.jit(retrieval_accuracy)
    a = np.eye(4, dtype=np.float32)
    assert float(found(a, a)) == 1.0
    assert float(found(a, a[[1, 0, 2, 3]])) == 0.5
    assert float(found(np.stack([a, a], 1), np.stack([a, a[::-1]], 1))) == 0.5


@pytest.mark.parametrize("turned", [False, True])
def test_views_show_the_frames_that_the_rule_says(rng, turned):
    """A pixel's value is its clip and frame, so a view without augmentation names its frames."""
    settings = {"spatial_other_clip": turned, "temporal_same_draw": turned}
    method = HDC(**settings).build(ENCODER, None, TrainLength(10, 5))
    number = np.arange(3 * 4).reshape(3, 4)
    videos = np.broadcast_to(number[None, :, :, None, None, None], (2, 3, 4, 8, 8, 3))
    plain = Augment(
        size=8, crop="plain", flip=0.0, jitter=0.0, gray=0.0, blur=0.0,
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    key, draw = jax.random.key(0), jax.jit(make_views, static_argnames=("views", "augment"))
    views = np.array(draw(key, videos.astype(np.uint8), views=method.views, augment=plain))
    numbers = np.round(255 * views[0, :, :, 0, 0, 0]).astype(int)
    expected = [number[0], number[2 if turned else 0], number[1]]
    np.testing.assert_array_equal(numbers, expected)
    noisy = rng.integers(0, 256, (2, 1, 4, 12, 12, 3), np.uint8).repeat(3, axis=1)
    noisy_views = np.array(draw(key, noisy, views=method.views, augment=plain))
    assert np.array_equal(noisy_views[:, 0], noisy_views[:, 2]) == turned
    assert not np.array_equal(noisy_views[:, 0], noisy_views[:, 1])


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="HDC makes its own comparisons: .* None, got MoCo"):
        HDC().build(ENCODER, MoCo(), TrainLength(10, 5))
    with pytest.raises(ValueError, match=r"spatial_weights must have 3 numbers .* got \(\)"):
        HDC(weighting="list", temporal_weights=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="tasks must be one of"):
        HDC(tasks=("temporal", "spatial"))
    with pytest.raises(ValueError, match="spatial_weights must have 0 numbers"):
        HDC(spatial_weights=(1.0,))
    with pytest.raises(ValueError, match="share_heads requires inputs of equal width"):
        HDC(share_heads=True, steps="flatten")
    with pytest.raises(ValueError, match=r"stages of the encoder, which has 3, got \(-4, 2\)"):
        build(levels=(-4, 2))
