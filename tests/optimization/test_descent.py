"""Directions of steepest descent, gradient descent, gradient flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from dltheory import optimization
from dltheory.debug import checked

GRADIENT = np.array([0.7, -1.5, 0.2])
METRIC = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]])
NORMS = {
    "l1": lambda x: np.abs(x).sum(-1),
    "l2": lambda x: np.sqrt((x**2).sum(-1)),
    "linf": lambda x: np.abs(x).max(-1),
    "P": lambda x: np.sqrt(np.einsum("...i,ij,...j", x, METRIC, x)),
}


@pytest.mark.statement("optimizers.steepest_descent")
@pytest.mark.parametrize("name", NORMS)
def test_no_unit_direction_is_steeper(name, x64):
    norm = jnp.asarray(METRIC) if name == "P" else name
    direction = np.asarray(optimization.steepest_descent_direction(jnp.asarray(GRADIENT), norm))
    assert NORMS[name](direction) == pytest.approx(1)
    others = np.random.default_rng(0).normal(size=(10_000, 3))
    others /= NORMS[name](others)[:, None]
    assert GRADIENT @ direction <= (others @ GRADIENT).min()


@pytest.mark.statement("optimizers.steepest_descent")
@pytest.mark.parametrize("norm", ["l1", "l2", "linf", jnp.eye(3)])
def test_zero_gradient_has_no_direction(norm):
    np.testing.assert_array_equal(optimization.steepest_descent_direction(jnp.zeros(3), norm), np.zeros(3))
    assert jnp.isfinite(jax.jacfwd(optimization.steepest_descent_direction)(jnp.zeros(3), norm)).all()


@pytest.mark.statement("optimizers.steepest_descent")
def test_direction_of_tiny_and_huge_gradients_is_unit():
    for scale in (1e-30, 1e30):
        gradient = jnp.asarray(scale * GRADIENT, jnp.float32)
        for norm in ("l2", jnp.eye(3)):
            direction = optimization.steepest_descent_direction(gradient, norm)
            np.testing.assert_allclose(direction, -GRADIENT / np.linalg.norm(GRADIENT), rtol=1e-5)
            assert jnp.isfinite(jax.jacfwd(optimization.steepest_descent_direction)(gradient, norm)).all()


@pytest.mark.statement("optimizers.steepest_descent")
def test_bad_norms():
    with pytest.raises(ValueError, match="`norm` must be one of l2, l1, linf"):
        optimization.steepest_descent_direction(jnp.ones(2), "l3")
    assert jnp.isnan(optimization.steepest_descent_direction(jnp.ones(2), -jnp.eye(2))).all()


@pytest.mark.statement("optimizers.gradient_descent")
def test_flow_is_scipys_and_says_when_it_gave_up(x64):
    def objective(params):
        return jnp.sum(jnp.cosh(params["x"])) + 0.5 * params["y"] ** 2 * params["x"][0] ** 2

    start, times = {"x": jnp.array([1.0, -0.5]), "y": jnp.array(2.0)}, jnp.array([0.0, 0.3, 1.5])
    flow = jax.jit(lambda start: optimization.gradient_flow(objective, start, times, rtol=1e-9, atol=1e-11))(start)
    reference = integrate.solve_ivp(
        lambda t, p: [-np.sinh(p[0]) - p[2] ** 2 * p[0], -np.sinh(p[1]), -p[2] * p[0] ** 2],
        (0, 1.5),
        [1.0, -0.5, 2.0],
        t_eval=times,
        rtol=1e-11,
        atol=1e-13,
    )
    assert flow.converged
    np.testing.assert_allclose(flow.params["x"], reference.y[:2].T, rtol=1e-7)
    np.testing.assert_allclose(flow.params["y"], reference.y[2], rtol=1e-7)
    stopped = jax.jit(lambda start: optimization.gradient_flow(objective, start, times, max_steps=2))(start)
    assert not stopped.converged


@pytest.mark.statement("optimizers.gradient_descent")
def test_flow_needs_increasing_times():
    flow = jax.jit(lambda times: optimization.gradient_flow(lambda x: x**2, jnp.array(1.0), times)[:2])
    for times in ([1.0, 0.5], [-0.5, 1.0]):
        params, converged = flow(jnp.array(times))
        assert jnp.isnan(params).all()
        assert not converged
    with pytest.raises(ValueError, match="`times` must hold at least one"):
        flow(jnp.zeros(0))
    with pytest.raises(ValueError, match="`times` must be increasing"):
        checked(flow)(jnp.array([1.0, 0.5]))


@pytest.mark.statement("optimizers.newton_isotropy")
def test_newton_is_gradient_descent_where_the_hessian_is_isotropic(x64):
    def objective(x):
        return 2.0 * jnp.sum((x - 1.0) ** 2)  # Hessian 4 I

    x = jnp.array([0.3, -2.0])
    newton = optimization.run_optimizer(optimization.newton(), objective, x, 1).params
    descent = optimization.run_optimizer(optimization.gradient_descent(0.25), objective, x, 1).params
    np.testing.assert_allclose(newton, descent, atol=1e-14)
