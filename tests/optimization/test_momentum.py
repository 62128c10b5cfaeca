"""Momentum against optax, recurrences written out, and roots of polynomials."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import optimization

START = {"u": np.array([1.0, -2.0]), "v": np.array(0.5)}


def objective(params):
    return jnp.sum(jnp.cosh(params["u"])) + 0.5 * (params["v"] - params["u"][0]) ** 2


def paths(optimizer):
    return jax.jit(lambda params: optimization.run_optimizer(optimizer, objective, params, 25))(START)


@pytest.mark.statement("optimizers.nesterov")
def test_nesterov_moves_like_optax_and_keeps_the_other_sequence(x64):
    ours, theirs = paths(optimization.nesterov(0.1, 0.8)), paths(optax.sgd(0.1, momentum=0.8, nesterov=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours.params, theirs.params)
    # y_k = x_k + beta (x_k - x_{k-1})
    for y, x in zip(jax.tree.leaves(ours.params), jax.tree.leaves(ours.state.iterate), strict=True):
        np.testing.assert_allclose(y[1:], x[1:] + 0.8 * (x[1:] - x[:-1]), atol=1e-12)


@pytest.mark.statement("optimizers.nesterov")
def test_nesterov_with_schedules_is_the_recurrence(x64):
    momentum, rate = lambda k: (k - 1) / (k + 2), lambda k: 0.2 / (k + 1)
    value = optimization.quadratic(jnp.diag(jnp.array([1.0, 5.0]))).value
    start = np.array([1.0, -1.0])
    run = optimization.run_optimizer(optimization.nesterov(rate, momentum), value, jnp.asarray(start), 10)
    x = y = start
    for k in range(10):
        np.testing.assert_allclose(run.state.iterate[k], x, atol=1e-14)
        before, x = x, y - rate(k) * np.array([1.0, 5.0]) * y
        y = x + momentum(k + 1) * (x - before)
    np.testing.assert_allclose(run.params[10], y, atol=1e-14)


@pytest.mark.statement("optimizers.nesterov")
def test_nesterov_without_momentum_is_gradient_descent():
    ours, plain = paths(optimization.nesterov(0.1, 0.0)), paths(optimization.gradient_descent(0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours.params, plain.params)
    with pytest.raises(ValueError, match="`params`"):
        optimization.nesterov(0.1, 0.0).update(START, optimization.nesterov(0.1, 0.0).init(START))


@pytest.mark.statement("optimizers.heavy_ball")
def test_heavy_ball_is_the_recurrence(x64):
    run = paths(optimization.heavy_ball(0.1, 0.8)).params
    gradients = jax.vmap(jax.grad(objective))(run)
    for x, gradient in zip(jax.tree.leaves(run), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(x[2:], x[1:-1] - 0.1 * gradient[1:-1] + 0.8 * (x[1:-1] - x[:-2]), atol=1e-13)


ROOTS = [
    (optimization.heavy_ball_quadratic_rate, lambda lam, eta, beta: (1, -(1 + beta - eta * lam), beta)),
    (
        optimization.nesterov_quadratic_rate,
        lambda lam, eta, beta: (1, -(1 + beta) * (1 - eta * lam), beta * (1 - eta * lam)),
    ),
]


@pytest.mark.statement("optimizers.heavy_ball", "optimizers.nesterov")
@pytest.mark.parametrize(("rate", "polynomial"), ROOTS)
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 1.0])
def test_rates_are_the_largest_roots(rate, polynomial, beta, x64):
    for eta_lambda in (0.0, 0.013, 0.4, 1.0, 2.3, 5.0):
        expected = np.abs(np.roots(polynomial(eta_lambda, 1.0, beta))).max()
        assert float(rate(jnp.array(eta_lambda), 1.0, beta)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.statement("optimizers.heavy_ball", "optimizers.nesterov")
@pytest.mark.parametrize("kappa", [1.0, 10.0, 1e4])
def test_optimal_settings_reach_the_optimal_rates(kappa, x64):
    spectrum = jnp.geomspace(1.0, kappa, 20)
    heavy = jax.vmap(optimization.heavy_ball_quadratic_rate, (0, None, None))(
        spectrum, *optimization.heavy_ball_optimal(1.0, kappa)
    )
    root = np.sqrt(kappa)
    np.testing.assert_allclose(heavy, (root - 1) / (root + 1), atol=3e-7)
    fast = jax.vmap(optimization.nesterov_quadratic_rate, (0, None, None))(
        spectrum, *optimization.nesterov_optimal(1.0, kappa)
    )
    np.testing.assert_allclose(jnp.max(fast), 1 - 1 / root, atol=3e-7)


@pytest.mark.statement("optimizers.heavy_ball_terminal_velocity")
def test_terminal_velocity_is_where_the_step_settles(x64):
    optimizer = optimization.heavy_ball(0.1, 0.5)
    run = optimization.run_optimizer(optimizer, lambda x: 3.0 * x, jnp.array(0.0), 60).params
    assert float(run[-1] - run[-2]) == pytest.approx(float(optimization.terminal_velocity(0.1, 0.5, jnp.array(3.0))))


@pytest.mark.statement("optimizers.heavy_ball_terminal_velocity")
def test_without_damping_there_is_no_terminal_velocity():
    velocity = optimization.terminal_velocity(0.1, 1.0, jnp.array([2.0, -1.0, 0.0]))
    np.testing.assert_array_equal(velocity, [-np.inf, np.inf, 0.0])
