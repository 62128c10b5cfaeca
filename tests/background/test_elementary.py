"""Logarithm near one, geometric series, determinants, ridge functions and Jacobians."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import background


@pytest.mark.statement("background.log1p_approx")
def test_log1p_linear_error_is_precise_everywhere(x64):
    small = np.geomspace(1e-150, 0.9, 40)
    x = np.concatenate([small, -small, [-0.999, -0.5, -0.4142, -0.25, 0.5, 9.0]])
    found = jax.jit(background.log1p_linear_error)(x)
    with localcontext(prec=200):
        exact = [(1 + Decimal(float(v))).ln() - Decimal(float(v)) if abs(v) > 1e-60 else None for v in x]
    for value, error, reference in zip(x, np.asarray(found), exact, strict=True):
        # -x^2 / 2 underflows below 1e-154; below 1e-60 the next term is negligible
        expected = -(value**2) / 2 if reference is None else float(reference)
        assert error == pytest.approx(expected, rel=2e-15, abs=1e-300)


@pytest.mark.statement("background.log1p_approx")
def test_log1p_linear_error_at_the_edge_of_its_domain():
    error = background.log1p_linear_error(jnp.array([-1.0, -2.0, 0.0]))
    np.testing.assert_array_equal(error, [-jnp.inf, jnp.nan, 0.0])
    slope = jax.vmap(jax.grad(background.log1p_linear_error))(jnp.array([0.0, 1e-6, 3.0]))
    np.testing.assert_allclose(slope, [0.0, -1e-6, -0.75], rtol=1e-5)


@pytest.mark.statement("background.geometric_series")
@pytest.mark.parametrize("r", [-2.0, -1.0, -0.9, 0.0, 0.5, 0.99, 1.0 - 1e-9, 1.0, 1.0 + 1e-6, 1.3, 3.0])
def test_geometric_partial_sum_and_its_slope_equal_the_sum(r, x64):
    n = np.arange(25)
    value = jax.vmap(background.geometric_partial_sum, in_axes=(None, 0))
    slope = jax.vmap(jax.grad(background.geometric_partial_sum), in_axes=(None, 0))
    np.testing.assert_allclose(jax.jit(value)(r, n), np.cumsum(r**n), rtol=1e-13)
    powers = np.where(n == 0, 0.0, n * r ** np.maximum(n - 1.0, 0))
    np.testing.assert_allclose(jax.jit(slope)(r, n), np.cumsum(powers), rtol=1e-11, atol=1e-13)


@pytest.mark.statement("background.geometric_series")
def test_geometric_limit_is_the_limit_or_says_that_there_is_none(x64):
    partial = background.geometric_partial_sum(jnp.array(0.9), jnp.array(2000))
    assert float(background.geometric_limit(jnp.array(0.9))) == pytest.approx(float(partial), rel=1e-14)
    outside = background.geometric_limit(jnp.array([1.0, 2.0, -1.0, -3.0]))
    np.testing.assert_array_equal(outside, [jnp.inf, jnp.inf, jnp.nan, jnp.nan])
    assert np.isfinite(jax.grad(background.geometric_limit)(1.0))


@pytest.mark.statement("background.det_product")
def test_logdet_product_survives_where_the_determinant_overflows():
    a, b = 100 * jnp.eye(99), -100 * jnp.eye(99)
    assert not np.isfinite(jnp.linalg.det(a @ b))
    sign, logabsdet = background.logdet_product(a, b)
    assert (float(sign), float(logabsdet)) == (-1.0, pytest.approx(198 * np.log(100), rel=1e-5))


@pytest.mark.statement("background.det_product")
def test_logdet_product_of_a_singular_matrix():
    sign, logabsdet = background.logdet_product(jnp.ones((2, 2)), jnp.eye(2))
    assert (float(sign), float(logabsdet)) == (0.0, -np.inf)


@pytest.mark.statement("background.level_sets")
def test_ridge_function_is_constant_orthogonally_to_its_weights(x64):
    w, x = jnp.array([3.0, -4.0]), jnp.array([0.2, 0.1])
    along = jnp.array([4.0, 3.0])

    def f(x):
        return background.ridge_function(jnp.tanh, w, jnp.array(0.5), x)

    assert float(f(x)) == pytest.approx(np.tanh(3.0 * 0.2 - 4.0 * 0.1 + 0.5), rel=1e-14)
    assert float(f(x + 7 * along)) == pytest.approx(float(f(x)), rel=1e-13)
    _, derivative = jax.jvp(f, (x,), (along,))
    assert abs(float(derivative)) < 1e-15


@pytest.mark.statement("background.jacobian")
def test_jacobians_have_outputs_in_rows():
    matrix = jnp.arange(6.0).reshape(2, 3)
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(jacobian(lambda x: matrix @ x)(jnp.ones(3)), matrix)
