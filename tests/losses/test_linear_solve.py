import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.losses.linear_solve import invert_batch, solve_batch


@pytest.mark.parametrize("shape, columns", [((1,), 1), ((5, 4), 3), ((2, 3, 31), 31)])
def test_solution_and_gradient_agree_with_lapack(rng, shape, columns):
    a = rng.normal(size=(*shape, shape[-1])).astype(np.float32) + 2 * np.eye(shape[-1], dtype="f")
    b = rng.normal(size=(*shape, columns)).astype(np.float32)

    def squares(solve):
        return lambda a, b: (lambda x: ((x**2).sum(), x))(solve(a, b))

    slopes = jax.jit(jax.grad(squares(solve_batch), argnums=(0, 1), has_aux=True))
    expected = jax.jit(jax.grad(squares(jnp.linalg.solve), argnums=(0, 1), has_aux=True))(a, b)[0]
    ours, solution = slopes(a, b)
    np.testing.assert_allclose(solution, np.linalg.solve(a, b), rtol=2e-3, atol=2e-3)
    for got, want in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-2 * np.abs(want).max())


@pytest.mark.parametrize("shape", [(1, 1), (5, 4, 4), (2, 3, 15, 15)])
def test_inverse_and_its_slopes_agree_with_lapack(rng, shape):
    a = rng.normal(size=shape).astype(np.float32) + 2 * np.eye(shape[-1], dtype="f")
    weights = rng.normal(size=shape).astype(np.float32)

    def slope_of(invert):
        return lambda a: jax.grad(lambda a: jnp.sum(weights * invert(a) ** 2))(a)

    def curvature_of(invert):
        return lambda a: jax.jvp(slope_of(invert), (a,), (weights,))[1]

    ours, expected = (
        jax.jit(lambda a, f=f: (f(a), slope_of(f)(a), curvature_of(f)(a)))(a)
        for f in (invert_batch, jnp.linalg.inv)
    )
    for got, want in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-3 * np.abs(want).max())


def test_a_zero_pivot_is_exchanged():
    a, b = np.float32([[0, 2], [3, 0]]), np.float32([[4], [6]])
    np.testing.assert_allclose(np.ravel(solve_batch(a, b)), [2, 2])
    np.testing.assert_allclose(invert_batch(jnp.array(a)), [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)
