"""Test problems: values against SciPy, constants against Hessians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dltheory import optimization
from dltheory.debug import checked

RNG = np.random.default_rng(0)
FEATURES, X = RNG.normal(size=(8, 3)), RNG.normal(size=3)
LABELS = np.sign(RNG.normal(size=8))


def test_quadratic_constants_are_those_of_the_spectrum(x64):
    root = RNG.normal(size=(3, 3))
    hessian, linear = root @ root.T, RNG.normal(size=3)
    problem = optimization.quadratic(jnp.asarray(hessian), jnp.asarray(linear))
    eigenvalues, minimiser = np.linalg.eigvalsh(hessian), np.linalg.solve(hessian, linear)
    np.testing.assert_allclose(problem.smoothness, eigenvalues[-1])
    np.testing.assert_allclose([problem.strong_convexity, problem.pl_constant], eigenvalues[0])
    np.testing.assert_allclose(problem.minimizer, minimiser)
    np.testing.assert_allclose(problem.minimum, -0.5 * linear @ minimiser)
    np.testing.assert_allclose(problem.value(problem.minimizer), problem.minimum)


def test_singular_quadratic_is_convex_and_pl(x64):
    hessian = np.outer([1.0, 2.0, 2.0], [1.0, 2.0, 2.0])  # of rank 1 with eigenvalue 9
    inside = optimization.quadratic(jnp.asarray(hessian), jnp.array([1.0, 2.0, 2.0]))
    np.testing.assert_allclose([inside.strong_convexity, inside.pl_constant], [0.0, 9.0], atol=1e-12)
    np.testing.assert_allclose(inside.minimizer, np.array([1.0, 2.0, 2.0]) / 9, atol=1e-12)
    outside = optimization.quadratic(jnp.asarray(hessian), jnp.array([1.0, 0.0, 0.0]))
    assert outside.minimum == -jnp.inf
    assert outside.pl_constant == 0
    assert jnp.isnan(outside.minimizer).all()


def test_indefinite_quadratic_has_no_minimum():
    problem = optimization.quadratic(jnp.diag(jnp.array([2.0, -1.0])))
    assert (problem.minimum, problem.strong_convexity, problem.smoothness) == (-jnp.inf, -1, 2)


def test_logistic_value_and_constants(x64):
    problem = optimization.ridge_logistic(jnp.asarray(FEATURES), jnp.asarray(LABELS), 0.3)
    expected = np.mean(np.log1p(np.exp(-LABELS * (FEATURES @ X)))) + 0.15 * X @ X
    np.testing.assert_allclose(problem.value(jnp.asarray(X)), expected)
    # At zero every probability is 1/2, where the curvature of the loss is largest.
    np.testing.assert_allclose(np.linalg.eigvalsh(jax.hessian(problem.value)(jnp.zeros(3)))[-1], problem.smoothness)
    np.testing.assert_allclose(np.linalg.eigvalsh(jax.hessian(problem.value)(1e4 * X))[0], 0.3)


def test_logistic_is_finite_far_away_and_wide_features_are_right():
    problem = optimization.ridge_logistic(jnp.asarray(FEATURES, jnp.float32), jnp.asarray(LABELS, jnp.float32))
    value, gradient = jax.value_and_grad(problem.value)(jnp.full(3, 1e4))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    wide = optimization.ridge_logistic(jnp.asarray(FEATURES.T), jnp.ones(3), 0.0)
    np.testing.assert_allclose(wide.smoothness, np.linalg.norm(FEATURES, 2) ** 2 / 12, rtol=1e-5)


def test_labels_zero_and_one_are_refused_when_checked():
    value = checked(lambda labels: optimization.ridge_logistic(jnp.eye(2), labels).value(jnp.ones(2)))
    with pytest.raises(ValueError, match="`labels` must be -1 or \\+1"):
        value(jnp.array([0.0, 1.0]))


def test_huber_is_scipys():
    x = np.linspace(-4, 4, 9)
    for delta in (0.5, 2.0):
        np.testing.assert_allclose(
            jax.vmap(lambda r, delta=delta: optimization.huber(1, delta).value(r))(jnp.asarray(x)[:, None]),
            special.huber(delta, x),
            rtol=1e-6,
        )


def test_sine_quadratic_constants(x64):
    problem = optimization.sine_quadratic()
    grid = jnp.linspace(-10, 10, 4001)[:, None]
    curvature = jax.vmap(jax.hessian(problem.value))(grid)
    assert float(curvature.max()) == pytest.approx(float(problem.smoothness))
    assert float(curvature.min()) == pytest.approx(float(problem.strong_convexity), abs=1e-4)
    slope = jnp.ravel(jax.vmap(jax.grad(problem.value))(grid))
    assert bool(jnp.all(slope**2 >= 2 * problem.pl_constant * jax.vmap(problem.value)(grid)))


def test_log_sum_exp_value_and_smoothness(x64):
    offsets = RNG.normal(size=8)
    problem = optimization.log_sum_exp(jnp.asarray(FEATURES), jnp.asarray(offsets))
    np.testing.assert_allclose(problem.value(jnp.asarray(X)), np.asarray(special.logsumexp(FEATURES @ X + offsets)))
    assert jnp.isfinite(problem.value(jnp.full(3, 1e6)))
    pair = optimization.log_sum_exp(jnp.eye(2))
    np.testing.assert_allclose(np.linalg.eigvalsh(jax.hessian(pair.value)(jnp.zeros(2)))[-1], pair.smoothness)


def test_sizes_must_be_positive():
    for problem in (optimization.huber, optimization.sine_quadratic):
        with pytest.raises(ValueError, match="`num_features`"):
            problem(0)
    with pytest.raises(ValueError, match="`delta`"):
        optimization.huber(1, 0.0)
    with pytest.raises(ValueError, match="`ridge`"):
        optimization.ridge_logistic(jnp.eye(2), jnp.ones(2), -1.0)
