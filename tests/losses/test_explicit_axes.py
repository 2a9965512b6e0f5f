"""Losses have the same value on explicit mesh axes as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from vrl_jax import losses
from vrl_jax.losses import forecast, koopman

LOSSES = {
    "nt_xent": lambda x, y: losses.nt_xent(x[:, 0], y[:, 0], negatives=y[:, 1]),
    "nt_xent_steps": losses.nt_xent_steps,
    "info_nce": lambda x, y: losses.info_nce(x[:, 0], y[:, 0], temperature=0.2),
    "split": lambda x, y: koopman.split(x),
    "split of a batch": lambda x, y: koopman.split(x, scope="batch"),
    "split by projection": lambda x, y: koopman.split(x, projector="orthogonal"),
    "forecast of a batch": lambda x, y: koopman.fit(x, scope="batch").forecast(x),
    "shared_forecast": lambda x, y: forecast.shared_forecast(x, ahead=1),
    "cross_forecast": forecast.cross_forecast,
    "swapped_prediction": lambda x, y: losses.swapped_prediction(x[:, 0], y[:, 0]),
    "dot_products": lambda x, y: losses.dot_products(x[:, 0], y[:, 0]),
    "shuffle_rank": losses.shuffle_rank,
    "sinkhorn": lambda x, y: losses.sinkhorn(x[:, 0]),
}


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).normal(size=(2, 8, 4, 3)).astype(np.float32)


def shard(mesh, arrays):
    return [jax.device_put(x, jax.NamedSharding(mesh, jax.P("data"))) for x in arrays]


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_one_device(name, clips):
    mesh = jax.make_mesh((8,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)  # the default
    loss = jax.jit(LOSSES[name])
    expected = jax.tree.leaves(loss(*map(jnp.asarray, clips)))
    for got, value in zip(jax.tree.leaves(loss(*shard(mesh, clips))), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=2e-4, atol=2e-5)


def test_gradients_are_those_of_one_device(clips):
    gradient = jax.jit(jax.grad(LOSSES["nt_xent"]))
    mesh = jax.make_mesh((8,), ("data",))
    sharded = gradient(*shard(mesh, clips))
    assert sharded.sharding.spec[0] == "data"
    np.testing.assert_allclose(sharded, gradient(*clips), rtol=1e-4, atol=1e-6)
