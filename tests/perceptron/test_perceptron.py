"""The perceptron against a naive loop, its margins against quadratic and linear programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dltheory import perceptron
from dltheory.debug import checked


def naive_perceptron(x, y, num_epochs):
    """Textbook loop in NumPy: weights and mistakes after each visit."""
    theta, path, mistakes = np.zeros(x.shape[1]), [], []
    for _ in range(num_epochs):
        for xi, yi in zip(x, y, strict=True):
            wrong = yi * (xi @ theta) <= 0
            if wrong:
                theta = theta + yi * xi
            path.append(theta)
            mistakes.append(wrong)
    return np.array(path), np.array(mistakes)


_make_separable = jax.jit(lambda key, gamma: perceptron.make_separable(key, 30, 4, gamma))
_max_margin = jax.jit(perceptron.max_margin)


def separable(seed=0, gamma: float | jax.Array = 0.1):
    """Thirty examples in R^4: one shape for all tests, compiled once."""
    return _make_separable(jax.random.key(seed), jnp.asarray(gamma))


@pytest.mark.statement("perceptron.update_rule", "perceptron.norm_growth")
@pytest.mark.parametrize("seed", range(3))
def test_path_and_fit_are_the_naive_loop(seed, x64):
    data = separable(seed)
    theta, mistakes = naive_perceptron(np.asarray(data.x), np.asarray(data.y), 40)
    path = perceptron.perceptron_path(data.x, data.y, jnp.zeros(4), num_epochs=40)
    np.testing.assert_allclose(path.theta, theta, atol=1e-12)
    np.testing.assert_array_equal(path.mistake, mistakes)
    np.testing.assert_allclose(path.step, np.diff(theta, axis=0, prepend=np.zeros((1, 4))), atol=1e-12)
    fit = perceptron.perceptron_fit(data.x, data.y)
    assert fit.converged
    np.testing.assert_allclose(fit.theta, theta[-1], atol=1e-12)
    assert int(fit.num_mistakes) == mistakes.sum()
    assert np.all(jax.vmap(perceptron.perceptron_predict, in_axes=(None, 0))(fit.theta, data.x) == data.y)


@pytest.mark.statement("perceptron.update_rule")
def test_fit_gives_up_on_data_that_are_not_separable():
    x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    fit = perceptron.perceptron_fit(x, jnp.array([1.0, -1.0, -1.0, 1.0]), max_epochs=25)
    assert not fit.converged
    assert int(fit.num_epochs) == 25


@pytest.mark.statement("perceptron.update_rule", "perceptron.zigzag")
def test_a_tie_is_a_mistake_and_prediction_zero():
    x = jnp.array([1.0, -1.0])
    moved, mistake = perceptron.perceptron_update(jnp.ones(2), x, jnp.array(1.0))
    assert mistake
    np.testing.assert_array_equal(moved, [2.0, 0.0])
    assert float(perceptron.perceptron_predict(jnp.ones(2), x)) == 0.0


@pytest.mark.statement("perceptron.update_rule")
def test_training_over_missing_values_does_not_claim_to_converge():
    fit = perceptron.perceptron_fit(jnp.array([[jnp.nan, 1.0], [1.0, 1.0]]), jnp.ones(2), max_epochs=3)
    assert not fit.converged


@pytest.mark.statement("perceptron.update_rule", "perceptron.linear_separability")
@pytest.mark.parametrize("array", [jnp.array, np.array])
def test_integers_and_numpy_arrays_are_data_too(array):
    x, y = array([[1, 1], [1, -1], [-3, 0]]), array([1, 1, -1])
    expected = perceptron.perceptron_fit(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    assert perceptron.perceptron_fit(x, y).theta.dtype == jnp.float32
    np.testing.assert_array_equal(perceptron.perceptron_fit(x, y).theta, expected.theta)
    np.testing.assert_array_equal(perceptron.perceptron_fit(1.0 * x, y).theta, expected.theta)
    path = perceptron.perceptron_path(x, y, array([0, 0]), num_epochs=2)
    np.testing.assert_array_equal(path.theta[-1], expected.theta)
    assert float(perceptron.max_margin(x, y).margin) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.statement("perceptron.loss_sgd")
@pytest.mark.parametrize("theta", [[0.0, 0.0], [1.0, 2.0], [-1.0, -2.0]])
def test_loss_and_its_subgradient_at_the_kink(theta, x64):
    theta, x, y = jnp.array(theta), jnp.array([0.5, 1.5]), jnp.array(1.0)
    expected = max(0.0, -float(y * (x @ theta)))
    assert float(perceptron.perceptron_loss(theta, x, y)) == pytest.approx(expected)
    moved, _ = perceptron.perceptron_update(theta, x, y)
    np.testing.assert_allclose(theta - jax.grad(perceptron.perceptron_loss)(theta, x, y), moved)


def quadratic_program_margin(x, y):
    """Hard-margin support vector machine without bias by SLSQP: 1 / min ||w|| with y x.w >= 1."""
    signed = y[:, None] * x
    start = np.linalg.lstsq(signed, np.full(len(x), 2.0), rcond=None)[0]
    solution = optimize.minimize(
        lambda w: 0.5 * w @ w,
        start,
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": lambda w: signed @ w - 1, "jac": lambda w: signed},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert solution.success
    return 1 / np.linalg.norm(solution.x)


@pytest.mark.statement("perceptron.linear_separability")
@pytest.mark.parametrize("seed", range(4))
def test_max_margin_is_that_of_the_quadratic_program(seed, x64):
    data = separable(seed, gamma=0.05)
    best = _max_margin(data.x, data.y)
    assert best.converged
    expected = quadratic_program_margin(np.asarray(data.x), np.asarray(data.y))
    assert float(best.margin) - 1e-7 <= expected <= float(best.upper_bound) + 1e-7
    assert float(perceptron.margin(best.theta, data.x, data.y)) == pytest.approx(float(best.margin), rel=1e-12)
    assert float(best.margin) >= float(perceptron.margin(data.theta_star, data.x, data.y)) - 1e-6


@pytest.mark.statement("perceptron.linear_separability")
def test_data_that_are_not_separable_have_no_positive_margin():
    """The linear program that looks for a separator has no solution, and `max_margin` stops early with a bound of 0."""
    x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    y = np.array([1.0, -1.0, -1.0, 1.0])
    program = optimize.linprog(np.zeros(2), A_ub=-(y[:, None] * x), b_ub=-np.ones(4), bounds=(None, None))
    assert program.status == 2
    best = _max_margin(jnp.asarray(x), jnp.asarray(y))
    assert best.converged
    assert float(best.margin) <= 0
    assert float(best.upper_bound) < 1e-5


@pytest.mark.statement("perceptron.linear_separability")
def test_margin_does_not_depend_on_the_scale_of_the_weights(x64):
    data = separable()
    margins = [float(perceptron.margin(scale * data.theta_star, data.x, data.y)) for scale in (1e-200, 1.0, 1e200)]
    np.testing.assert_allclose(margins, margins[0], rtol=1e-12)
    assert np.isnan(perceptron.margin(jnp.zeros(4), data.x, data.y))


@pytest.mark.statement("perceptron.linear_separability")
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_generated_data_keep_their_promises(gamma, dtype, x64):
    data = separable(3, jnp.asarray(gamma, dtype))
    assert data.x.dtype == dtype
    assert float(perceptron.margin(data.theta_star, data.x, data.y)) >= gamma * (1 - 20 * jnp.finfo(dtype).eps)
    assert float(jnp.max(jnp.linalg.norm(data.x, axis=1))) <= 1
    assert set(np.asarray(data.y)) == {-1.0, 1.0}


@pytest.mark.statement("perceptron.novikov", "perceptron.novikov_proof")
def test_mistakes_stay_below_the_bound_and_the_chain_holds(x64):
    data = separable(7, gamma=0.08)
    best = _max_margin(data.x, data.y)
    radius = jnp.max(jnp.linalg.norm(data.x, axis=1))
    fit = perceptron.perceptron_fit(data.x, data.y)
    assert int(fit.num_mistakes) <= float(perceptron.novikov_bound(radius, best.margin))
    path = perceptron.perceptron_path(data.x, data.y, jnp.zeros(4), num_epochs=40)
    chain = perceptron.novikov_certificate(path.theta, path.mistake, best.theta)
    s = np.cumsum(path.mistake)
    np.testing.assert_array_equal(chain.num_mistakes, s)
    assert np.all(s * best.margin <= chain.inner + 1e-12)
    assert np.all(chain.inner <= chain.norm + 1e-12)
    assert np.all(chain.norm <= radius * np.sqrt(s) + 1e-12)


@pytest.mark.statement("perceptron.novikov")
def test_bound_is_the_squared_ratio_and_attained_at_any_radius():
    x = 3.0 * jnp.eye(4)
    bound = float(perceptron.novikov_bound(jnp.array(3.0), perceptron.margin(jnp.ones(4), x, jnp.ones(4))))
    assert bound == pytest.approx(4.0)
    assert int(perceptron.perceptron_fit(x, jnp.ones(4)).num_mistakes) == 4


@pytest.mark.statement("perceptron.novikov")
def test_bound_without_a_margin_is_infinite():
    assert float(perceptron.novikov_bound(jnp.array(1.0), jnp.array(0.0))) == np.inf
    assert float(perceptron.novikov_bound(jnp.array(1.0), jnp.array(-0.5))) == np.inf
    assert float(jax.grad(perceptron.novikov_bound, argnums=1)(jnp.array(1.0), jnp.array(0.0))) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perceptron.perceptron_fit(jnp.ones((2, 2)), jnp.ones(2), max_epochs=0), "`max_epochs`"),
        (lambda: perceptron.perceptron_path(jnp.ones((2, 2)), jnp.ones(2), jnp.zeros(2), num_epochs=0), "`num_epochs`"),
        (lambda: perceptron.max_margin(jnp.ones((2, 2)), jnp.ones(2), tolerance=0.0), "`tolerance`"),
        (lambda: perceptron.make_separable(jax.random.key(0), 3, 2, 1.5), "`gamma`"),
        (lambda: perceptron.make_separable(jax.random.key(0), 3, 1, 0.5), "`num_features`"),
        (lambda: perceptron.make_separable(jax.random.key(0), 0, 2, 0.5), "`num_examples`"),
    ],
)
def test_settings_outside_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("function", [perceptron.perceptron_update, perceptron.perceptron_loss])
def test_labels_zero_and_one_are_refused_in_debug_mode(function):
    with pytest.raises(ValueError, match="`y` must be -1 or \\+1"):
        checked(function)(jnp.ones(2), jnp.ones(2), jnp.array(0.0))


@pytest.mark.parametrize("function", [perceptron.perceptron_fit, perceptron.max_margin])
def test_label_vectors_are_checked_too(function):
    with pytest.raises(ValueError, match="`y` must be -1 or \\+1"):
        checked(function)(jnp.eye(2), jnp.array([0.0, 1.0]))
