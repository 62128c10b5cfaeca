"""Newton's method against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dltheory import optimization
from dltheory.debug import checked

PARAMS = {"w": jnp.array([[0.3, -0.8], [1.0, 0.5]]), "b": jnp.array(-0.2)}


def objective(params):
    return jnp.sum(jnp.cosh(params["w"])) + jnp.exp(params["b"] + params["w"][0, 1]) + params["b"] ** 2


def dense(params):
    """Gradient and Hessian in flat coordinates."""
    flat, unravel = ravel_pytree(params)
    return jax.grad(lambda v: objective(unravel(v)))(flat), jax.hessian(lambda v: objective(unravel(v)))(flat), unravel


def as_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float64"), tree)


@pytest.mark.statement("optimizers.newton")
def test_hessian_vector_product_is_that_of_the_dense_hessian(x64):
    params = as_float64(PARAMS)
    vector = jax.tree.map(lambda leaf: jnp.sin(3 * leaf), params)
    _, hessian, _ = dense(params)
    product = jax.jit(lambda p, v: optimization.hessian_vector_product(objective, p, v))(params, vector)
    np.testing.assert_allclose(ravel_pytree(product)[0], hessian @ ravel_pytree(vector)[0], rtol=1e-12)


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize("vector", [{"w": jnp.ones((2, 2))}, {"w": jnp.ones(2), "b": jnp.array(0.0)}, jnp.ones(5)])
def test_vector_must_be_like_params(vector):
    with pytest.raises(ValueError, match="`vector` must be like `params`"):
        optimization.hessian_vector_product(objective, PARAMS, vector)


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_directions_solve_the_newton_equation(damping, x64):
    params = as_float64(PARAMS)
    gradient, hessian, _ = dense(params)
    expected = -np.linalg.solve(hessian + damping * np.eye(5), gradient)
    exact = optimization.newton_direction(objective, params, damping)
    iterative = jax.jit(lambda p: optimization.newton_cg_direction(objective, p, damping, tolerance=1e-12))(params)
    assert exact.positive_definite
    assert iterative.converged
    assert int(iterative.num_steps) <= 6
    for direction in (exact.direction, iterative.direction):
        assert jax.tree.structure(direction) == jax.tree.structure(params)
        np.testing.assert_allclose(ravel_pytree(direction)[0], expected, rtol=1e-9)


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize(("signs", "saddle"), [([1.0, -1.0], True), ([-1.0, -1.0], False)])
def test_without_positive_curvature_newton_leads_astray_and_says_so(signs, saddle):
    def bend(x):
        return jnp.sum(jnp.array(signs) * x**2)

    start = jnp.array([1.0, 2.0])
    run = optimization.run_optimizer(optimization.newton(), bend, start, 1)
    np.testing.assert_allclose(run.params[-1], 0.0, atol=1e-6)  # the saddle, or the maximum
    assert not run.state.positive_definite[-1]
    with pytest.raises(ValueError, match="must be positive definite"):
        checked(lambda x: optimization.newton_direction(bend, x).direction)(start)
    iterative = optimization.newton_cg_direction(bend, start)
    assert iterative.negative_curvature
    assert not iterative.converged
    assert float(jnp.vdot(iterative.direction, jax.grad(bend)(start))) < 0
    assert bool(jnp.isfinite(iterative.direction).all()) is True
    damped = optimization.newton_direction(bend, start, damping=3.0)
    assert damped.positive_definite
    assert float(jnp.vdot(damped.direction, jax.grad(bend)(start))) < 0


@pytest.mark.statement("optimizers.newton")
def test_singular_hessian_gives_no_finite_direction():
    result = optimization.newton_direction(lambda x: x[0] ** 2 + x[1], jnp.ones(2))
    assert not result.positive_definite
    assert not jnp.isfinite(result.direction).all()


@pytest.mark.statement("optimizers.newton")
def test_conjugate_gradients_flag_too_few_steps_and_rest_at_the_minimum(x64):
    hessian = jnp.diag(jnp.array([1.0, 10.0, 100.0]))
    value = optimization.quadratic(hessian).value
    short = optimization.newton_cg_direction(value, jnp.ones(3), tolerance=1e-10, max_steps=2)
    assert not short.converged
    assert int(short.num_steps) == 2
    at_rest = optimization.newton_cg_direction(value, jnp.zeros(3))
    assert at_rest.converged
    np.testing.assert_array_equal(at_rest.direction, np.zeros(3))


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_conjugate_gradients_do_not_mind_the_units_of_the_objective(scale):
    curvatures = jnp.array([1.0, 3.0, 9.0])
    result = optimization.newton_cg_direction(lambda x: scale * jnp.sum(curvatures * (x - 1) ** 2), jnp.zeros(3))
    assert result.converged
    np.testing.assert_allclose(result.direction, 1.0, rtol=1e-5)


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize("gradient", [jnp.nan, jnp.inf])
def test_conjugate_gradients_do_not_converge_on_a_gradient_that_is_not_finite(gradient):
    result = optimization.newton_cg_direction(lambda x: jnp.sum(x**2) + gradient * x[0], jnp.ones(2))
    assert not result.converged
    assert jnp.isnan(result.direction).all()


@pytest.mark.statement("optimizers.newton")
def test_without_parameters_there_is_nothing_to_solve():
    result = optimization.newton_cg_direction(lambda params: jnp.array(0.0), {})
    assert result.converged
    assert result.direction == {}


@pytest.mark.statement("optimizers.newton")
@pytest.mark.parametrize("optimizer", [optimization.newton(), optimization.newton_cg()])
def test_update_needs_the_objective(optimizer):
    with pytest.raises(ValueError, match="value_fn"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="`params`"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), value_fn=jnp.sum)
