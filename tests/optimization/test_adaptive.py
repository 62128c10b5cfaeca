"""Adaptive and sign methods against the textbook in NumPy, and against optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import optimization

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(30, 4)) * [1e-3, 1.0, 30.0, 1.0]
GRADIENTS[:, 3] = 0.0
ALPHA, BETA, EPS = 0.9, 0.99, 1e-6


def steps(optimizer, gradients, params=None) -> Any:
    """Updates of an optimizer for a sequence of gradients; parameters stay where they are."""
    gradients = jnp.asarray(gradients)
    params = jnp.zeros(gradients.shape[1]) if params is None else params

    def step(state, gradient):
        update, state = optimizer.update(gradient, state, params)
        return state, update

    return jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1]


def moments(gradients):
    first, second, path = 0.0, 0.0, []
    for gradient in gradients:
        first, second = ALPHA * first + (1 - ALPHA) * gradient, BETA * second + (1 - BETA) * gradient**2
        path.append((first, second))
    return map(np.array, zip(*path, strict=True))


def corrections():
    t = np.arange(1, 31)[:, None]
    return 1 - ALPHA**t, 1 - BETA**t


@pytest.mark.statement("optimizers.adam")
def test_adam_and_adamw_are_the_papers(x64):
    first, second = moments(GRADIENTS)
    correction_1, correction_2 = corrections()
    expected = -0.1 * (first / correction_1) / (np.sqrt(second / correction_2) + EPS)
    np.testing.assert_allclose(steps(optimization.adam(0.1, ALPHA, BETA, EPS), GRADIENTS), expected, atol=1e-14)
    params = np.array([1.0, -2.0, 3.0, 4.0])
    decayed = steps(optimization.adamw(0.1, ALPHA, BETA, EPS, weight_decay=0.3), GRADIENTS, jnp.asarray(params))
    np.testing.assert_allclose(decayed, expected - 0.1 * 0.3 * params, atol=1e-14)


@pytest.mark.statement("optimizers.amsgrad")
def test_amsgrad_is_the_papers_and_not_optaxs_default(x64):
    first, second = moments(GRADIENTS)
    expected = -0.1 * first / (np.sqrt(np.maximum.accumulate(second)) + EPS)
    np.testing.assert_allclose(steps(optimization.amsgrad(0.1, ALPHA, BETA, EPS), GRADIENTS), expected, atol=1e-14)
    default = steps(optax.amsgrad(0.1, ALPHA, BETA, EPS), GRADIENTS)
    assert not np.allclose(default, expected, rtol=0.1)


@pytest.mark.statement("optimizers.adagrad")
def test_adagrad_is_the_sheets_and_optaxs_without_constants(x64):
    expected = -0.1 * GRADIENTS / (np.sqrt(np.cumsum(GRADIENTS**2, axis=0)) + EPS)
    np.testing.assert_allclose(steps(optimization.adagrad(0.1, EPS), GRADIENTS), expected, atol=1e-15)
    theirs = steps(optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0), GRADIENTS)
    np.testing.assert_allclose(steps(optimization.adagrad(0.1, 0.0), GRADIENTS), theirs, atol=1e-15)


@pytest.mark.statement("optimizers.adagrad")
def test_adagrad_stays_where_nothing_pulls_and_takes_schedules():
    gradients = jnp.array([[0.0, 2.0], [0.0, 0.0], [1e-30, 2.0]])  # the last square underflows
    taken = steps(optimization.adagrad(lambda t: 1.0 / (t + 1), eps=0.0), gradients)
    np.testing.assert_allclose(taken, [[0.0, -1.0], [0.0, 0.0], [0.0, -1 / 3 / np.sqrt(2)]], rtol=1e-6)
    jacobian = jax.jacobian(lambda g: steps(optimization.adagrad(1.0, 0.0), g))(jnp.zeros((2, 2)))
    assert jnp.isfinite(jacobian).all()


@pytest.mark.statement("optimizers.adam")
def test_adam_at_the_edges_of_single_precision():
    tiny = steps(optimization.adam(0.1), np.full((1, 2), [1e-30, 1e-10], np.float32))
    np.testing.assert_allclose(tiny, [[-0.1 * 1e-30 / 1e-8, -0.1 * 1e-10 / (1e-10 + 1e-8)]], rtol=1e-3)
    assert jnp.isnan(steps(optimization.adam(0.1, eps=0.0), np.zeros((1, 1)))).all()


@pytest.mark.statement("optimizers.adam")
@pytest.mark.parametrize(("alpha", "beta"), [(0.9, 0.999), (0.0, 0.9), (0.5, 0.25), (0.9, 0.5)])
def test_largest_step_is_the_formula(alpha, beta, x64):
    for t in (1, 2, 50):
        series = np.sum((alpha**2 / beta) ** np.arange(t))
        expected = np.sqrt(1 - beta**t) / (1 - alpha**t) * (1 - alpha) / np.sqrt(1 - beta) * np.sqrt(series)
        assert float(optimization.adam_max_step(jnp.array(float(t)), alpha, beta)) == pytest.approx(expected)
    assert float(optimization.adam_max_step(jnp.array(1.0), alpha, beta)) == pytest.approx(1.0)


@pytest.mark.statement("optimizers.adam")
def test_largest_step_is_smooth_where_the_series_is_constant(x64):
    at = jnp.array(10.0), jnp.array(0.5), jnp.array(0.25)  # alpha^2 = beta
    gradient = jax.grad(optimization.adam_max_step, (0, 1, 2))(*at)
    for i in range(3):
        up, down = ((*at[:i], at[i] + sign * 1e-5, *at[i + 1 :]) for sign in (1, -1))
        difference = (optimization.adam_max_step(*up) - optimization.adam_max_step(*down)) / 2e-5
        assert float(gradient[i]) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.statement("optimizers.sign_sgd")
def test_sign_descent_takes_steps_of_one_size(x64):
    np.testing.assert_allclose(steps(optimization.sign_sgd(0.3), GRADIENTS), -0.3 * np.sign(GRADIENTS))


@pytest.mark.statement("optimizers.sign_sgd")
def test_error_feedback_owes_exactly_the_missing_gradient(x64):
    optimizer = optimization.error_feedback_sign_sgd(optax.linear_schedule(0.2, 0.1, 10))
    params = start = {"a": jnp.array([1.0, -1.0]), "b": jnp.array(3.0)}
    state, plain = optimizer.init(start), start
    for t in range(10):
        gradient = jax.tree.map(lambda leaf, t=t: jnp.sin(leaf + t), params)
        update, state = optimizer.update(gradient, state)
        magnitudes = {float(size) for leaf in jax.tree.leaves(update) for size in jnp.ravel(jnp.abs(leaf))}
        assert len(magnitudes) == 1
        params = optax.apply_updates(params, update)
        rate = 0.2 - 0.01 * t
        plain = jax.tree.map(lambda leaf, g, rate=rate: leaf - rate * g, plain, gradient)
    owed = optax.tree.get(state, "error")
    jax.tree.map(lambda p, e, q: np.testing.assert_allclose(p - e, q, atol=1e-13), params, owed, plain)


SETTINGS = [
    (lambda: optimization.gradient_descent(-0.1), "learning_rate"),
    (lambda: optimization.heavy_ball(0.1, 1.5), "momentum"),
    (lambda: optimization.nesterov(0.1, -0.5), "momentum"),
    (lambda: optimization.nesterov(-0.1, 0.5), "learning_rate"),
    (lambda: optimization.heavy_ball_optimal(0.0, 1.0), "strong_convexity"),
    (lambda: optimization.nesterov_optimal(2.0, 1.0), "smoothness"),
    (lambda: optimization.terminal_velocity(0.1, 1.5, jnp.array(1.0)), "momentum"),
    (lambda: optimization.sign_sgd(-1.0), "learning_rate"),
    (lambda: optimization.error_feedback_sign_sgd(-1.0), "learning_rate"),
    (lambda: optimization.adagrad(0.1, eps=-1.0), "eps"),
    (lambda: optimization.adam(0.1, b1=1.0), "b1"),
    (lambda: optimization.adamw(0.1, weight_decay=-1.0), "weight_decay"),
    (lambda: optimization.amsgrad(0.1, b2=1.0), "b2"),
    (lambda: optimization.adam_max_step(jnp.array(1.0), b2=0.0), "b2"),
    (lambda: optimization.newton(damping=-1.0), "damping"),
    (lambda: optimization.newton_cg(tolerance=0.0), "tolerance"),
    (lambda: optimization.newton_cg(max_steps=0), "max_steps"),
    (lambda: optimization.gradient_flow(jnp.sum, jnp.ones(1), jnp.ones(1), rtol=0.0), "rtol"),
    (lambda: optimization.gradient_flow(jnp.sum, jnp.ones(1), jnp.ones(1), atol=0.0), "atol"),
    (lambda: optimization.gradient_flow(jnp.sum, jnp.ones(1), jnp.ones(1), max_steps=0), "max_steps"),
]


@pytest.mark.parametrize(("make", "name"), SETTINGS, ids=[name for _, name in SETTINGS])
def test_settings_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()
