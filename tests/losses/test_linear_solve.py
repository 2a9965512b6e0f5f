import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.losses.linear_solve import solve_batch


@pytest.mark.parametrize("shape, columns", [((1,), 1), ((5, 4), 3), ((2, 3, 31), 31)])
def test_solution_and_gradient_agree_with_lapack(rng, shape, columns):
    a = rng.normal(size=(*shape, shape[-1])).astype(np.float32) + 2 * np.eye(shape[-1])
    a = jnp.array(a, jnp.float32)
    b = jnp.array(rng.normal(size=(*shape, columns)), jnp.float32)
    np.testing.assert_allclose(solve_batch(a, b), np.linalg.solve(a, b), rtol=2e-3, atol=2e-3)
    ours = jax.grad(lambda a, b: (solve_batch(a, b) ** 2).sum(), argnums=(0, 1))(a, b)
    expected = jax.grad(lambda a, b: (jnp.linalg.solve(a, b) ** 2).sum(), argnums=(0, 1))(a, b)
    for got, want in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-2 * np.abs(want).max())


def test_a_zero_pivot_is_exchanged():
    a = jnp.array([[0.0, 2.0], [3.0, 0.0]])
    np.testing.assert_allclose(solve_batch(a, jnp.array([[4.0], [6.0]])).ravel(), [2.0, 2.0])
