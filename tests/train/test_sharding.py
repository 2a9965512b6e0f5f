import jax
import numpy as np
import pytest

from vrl_jax.train import sharding


def test_rows_are_spread_and_come_back_whole(rng):
    devices = sharding.make_mesh()
    rows = rng.integers(0, 256, (16, 3), np.uint8)
    placed = sharding.shard_rows(devices, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(16 // devices.size, 3)}
    np.testing.assert_array_equal(placed, rows)


@pytest.mark.parametrize("batch, near", [(12, 16), (3, 8), (20, 16), (0, 8)])
def test_an_uneven_batch_is_refused_with_one_that_fits(batch, near):
    assert jax.device_count() == 8
    with pytest.raises(
        ValueError, match=rf"8 devices, got {batch}: try --config.train.batch={near}"
    ):
        sharding.check_batch(sharding.make_mesh(), "train.batch", batch)


def test_barriers_keep_a_cheap_map_from_being_computed_at_every_use():
    def uses(x):
        y = jax.lax.optimization_barrier(jax.numpy.maximum(x, 0))
        return y.T, y + 1

    options = sharding.compiler_options(sharding.make_mesh())
    program = jax.jit(uses, compiler_options=options).lower(np.ones((8, 8))).compile().as_text()
    assert program.count(" maximum(") == 1
