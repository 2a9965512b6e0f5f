"""Both levels of a step, in one loop and one after the other."""

from tests.methods.test_micro_batches import (  # noqa: F401
    assert_equal,
    build,
    fixed_statistics,
    start,
    take,
)
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.train import train_step


def test_one_loop_takes_the_step_of_one_level_after_the_other(
    fixed_statistics,  # noqa: F811
    monkeypatch,
):
    """With a teacher and a queue, which only the upper level reads."""
    method = build(MeanResidual, MoCo, inner_steps=2, reversed_negatives=False)
    state = start(method)
    apart, traced = take(method, state, 0)
    monkeypatch.setattr(train_step, "levels_in_one_loop", lambda method, platform: True)
    loop, traced_loop = take(method, state, 0)
    assert_equal(apart, loop)
    loops, loops_more = (str(each.jaxpr).count(" scan[") for each in (traced, traced_loop))
    assert loops_more == loops + 1


def test_levels_are_one_loop_on_accelerators():
    """On CPU they are not: gradients of convolutions are slow in loops there."""
    both = build(MeanResidual, MoCo, reversed_negatives=False)
    upper = build(MeanResidual, MoCo, reversed_negatives=False, inner_steps=0)
    for platform, expected in (("cpu", False), ("gpu", True), ("tpu", True)):
        assert train_step.levels_in_one_loop(both, platform) == expected
        assert not train_step.levels_in_one_loop(upper, platform)


def test_levels_that_embed_other_views_are_not_one_loop():
    assert build(MeanResidual, SimCLR, reversed_negatives=True).inner.joint is None
