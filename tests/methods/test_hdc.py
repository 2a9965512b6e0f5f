import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.frameworks.base import ProjectionHead
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.losses import nt_xent, nt_xent_steps
from vrl_jax.methods.hdc import HDC, TASKS, cosine_weights, retrieval_accuracy
from vrl_jax.types import TrainLength

ENCODER = Tiny(widths=(4, 6, 8), strides=(2, 1, 1))
HEADS = {"hidden": 8, "layers": 2, "norm": False}
SETTINGS = [
    {},
    {"weighting": "uniform"},
    {"weighting": "measured"},
    {"steps": "all_steps"},
    {"steps": "flatten"},
    {"steps": "pool"},
    {"share_heads": True},
    {"share_heads": True, "steps": "pool"},
    {"levels": (-1,)},
]


def build(**settings):
    method = HDC(dim=5, **HEADS, **settings).build(ENCODER, None, TrainLength(10, 5))
    clips = jax.random.normal(jax.random.key(0), (4, 3, 6, 8, 8, 3))
    params, state = method.init(jax.random.key(1), clips)
    return method, params, state, clips


def terms(method, params, state, clips):
    value, (_, metrics) = jax.jit(method.loss)(
        params, state, clips, jax.random.key(2), jnp.int32(0)
    )
    return value, metrics


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_variant_sums_its_weighted_terms(settings):
    method, params, state, clips = build(**settings)
    value, metrics = terms(method, params, state, clips)
    levels = len(settings.get("levels", (1, 2, 3)))
    weights = {"fixed": [0.5 ** (levels - 1 - k) for k in range(levels)]}.get(
        settings.get("weighting", "fixed"), [1.0] * levels
    )
    expected = sum(
        w * (metrics[f"loss/spatial{k}"] + metrics[f"loss/temporal{k}"])
        for k, w in enumerate(weights)
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "settings", [{}, {"share_heads": True}, {"weighting": "measured"}], ids=str
)
def test_a_task_left_out_takes_its_view_and_heads_along(task, settings):
    method, params, state, clips = build(tasks=(task,), **settings)
    value, metrics = terms(method, params, state, clips[:, :2])
    terms_by_level = [metrics[f"loss/{task}{k}"] for k in range(3)]
    weights = (1, 1, 1) if "weighting" in settings else (0.25, 0.5, 1)
    assert float(value) == pytest.approx(float(np.dot(weights, terms_by_level)), rel=1e-5)
    assert [view.clip for view in method.views] == [0, 0 if task == "spatial" else 1]
    (left_out,) = {*TASKS} - {task}
    assert not [name for name in (*metrics, *params["network"]) if left_out in name]


def test_the_terms_of_a_level_are_what_they_are_said_to_be():
    method, params, state, clips = build()
    _, metrics = terms(method, params, state, clips)
    flat = clips.reshape(-1, *clips.shape[2:])
    variables = {"params": params["network"]["encoder"], "batch_stats": state["stats"]["encoder"]}
    features, _ = ENCODER.module().apply(variables, flat, True, mutable=["batch_stats"])
    for k, stage in enumerate(features.stages):
        head = ProjectionHead(dim=5, **HEADS)
        steps = head.apply(
            {"params": params["network"][f"heads_spatial{k}"]}, stage.mean((2, 3)), True
        ).reshape(4, 3, 6, 5)
        whole = head.apply(
            {"params": params["network"][f"heads_temporal{k}"]}, stage.mean((1, 2, 3)), True
        ).reshape(4, 3, 5)
        spatial = nt_xent_steps(steps[:, 0], steps[:, 1])
        temporal = nt_xent(whole[:, 0], whole[:, 2])
        assert float(metrics[f"loss/spatial{k}"]) == pytest.approx(float(spatial), rel=1e-3)
        assert float(metrics[f"loss/temporal{k}"]) == pytest.approx(float(temporal), rel=1e-3)


def test_weights_select_and_the_loss_is_linear_in_them():
    def value(spatial, temporal):
        settings = {"weighting": "list", "spatial_weights": spatial, "temporal_weights": temporal}
        method, params, state, clips = build(**settings)
        return [float(x) for x in (terms(method, params, state, clips)[0],)][0], terms(
            method, params, state, clips
        )[1]

    top, metrics = value((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    assert top == pytest.approx(
        float(metrics["loss/spatial2"] + metrics["loss/temporal2"]), rel=1e-5
    )
    only, metrics = value((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    expected = sum(float(metrics[f"loss/spatial{k}"]) for k in range(3))
    assert only == pytest.approx(expected, rel=1e-5)
    other, _ = value((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    both, _ = value((2.0, 2.0, 2.0), (3.0, 3.0, 3.0))
    assert both == pytest.approx(2 * only + 3 * other, rel=1e-5)


def test_a_level_without_weight_moves_no_head_but_its_stage_still_learns():
    method, params, state, clips = build(
        weighting="list", spatial_weights=(0.0, 0.0, 1.0), temporal_weights=(0.0, 0.0, 1.0)
    )
    slopes = jax.jit(jax.grad(lambda p: terms(method, p, state, clips)[0]))(params)["network"]
    for k in range(3):
        for task in ("spatial", "temporal"):
            moved = any(np.any(x) for x in jax.tree.leaves(slopes[f"heads_{task}{k}"]))
            assert moved == (k == 2)
    assert any(np.any(x) for x in jax.tree.leaves(slopes["encoder"]["stem"]))


def test_measured_weights_follow_the_cosines_without_gradient():
    cosines = jnp.array([[0.2, 0.1], [0.4, -0.3], [0.8, 0.5]])
    np.testing.assert_allclose(cosine_weights(cosines)[:, 0], [0.25, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(cosine_weights(cosines)[:, 1], [0.2, 0.1, 1.0], rtol=1e-6)
    assert not np.any(jax.grad(lambda c: cosine_weights(c).sum())(cosines))
    method, params, state, clips = build(weighting="measured")
    _, (aux, metrics) = method.loss(params, state, clips, jax.random.key(2), jnp.int32(0))
    _, after = method.update(params, state, aux, jnp.int32(0))
    expected = 0.99 + 0.01 * metrics["cosine/temporal1"]
    assert float(after["losses"]["cosine"][1, 1]) == pytest.approx(float(expected), rel=1e-5)


def test_identical_embeddings_give_ln():
    method, params, state, clips = build()
    same = jnp.broadcast_to(clips[:1, :1], clips.shape)
    _, metrics = terms(method, params, state, same)
    losses = [float(x) for name, x in metrics.items() if name.startswith("loss/")]
    np.testing.assert_allclose(losses, np.log(7), rtol=1e-4)


def test_share_found_counts_nearest_neighbours():
    a = jnp.eye(4)
    assert float(retrieval_accuracy(a, a)) == 1.0
    assert float(retrieval_accuracy(a, a[jnp.array([1, 0, 2, 3])])) == 0.5
    assert float(retrieval_accuracy(jnp.stack([a, a], 1), jnp.stack([a, a[::-1]], 1))) == 0.5


@pytest.mark.parametrize("turned", [False, True])
def test_views_show_the_frames_that_the_rule_says(rng, turned):
    """A pixel's value is its clip and frame, so a view without augmentation names its frames."""
    settings = {"spatial_other_clip": turned, "temporal_same_draw": turned}
    method = HDC(**settings).build(ENCODER, None, TrainLength(10, 5))
    number = np.arange(3 * 4).reshape(3, 4)
    videos = np.broadcast_to(number[None, :, :, None, None, None], (2, 3, 4, 8, 8, 3))
    plain = Augment(
        size=8, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=0.0,
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    views = make_views(jax.random.key(0), jnp.array(videos, jnp.uint8), method.views, plain)
    numbers = np.round(255 * np.array(views[0, :, :, 0, 0, 0])).astype(int)
    expected = [number[0], number[2 if turned else 0], number[1]]
    np.testing.assert_array_equal(numbers, expected)
    noisy = jnp.array(rng.integers(0, 256, (2, 1, 4, 8, 8, 3)).repeat(3, axis=1), jnp.uint8)
    noisy_views = make_views(jax.random.key(0), noisy, method.views, Augment(size=8))
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
