"""Convexity, smoothness, descent and stationarity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from dltheory import convergence
from dltheory.debug import checked


def quartic(x):
    return jnp.sum(x**4 - x**2)


X, Y = np.array([0.5, -1.2, 2.0]), np.array([1.5, 0.3, -0.4])


@pytest.mark.statement("convergence.convexity")
def test_convexity_gap_of_a_quadratic(x64):
    hessian = np.diag([1.0, 2.0, 5.0])
    gap = convergence.convexity_gap(lambda z: z @ hessian @ z / 2, jnp.asarray(X), jnp.asarray(Y), 0.3)
    assert float(gap) == pytest.approx(0.3 * 0.7 / 2 * (X - Y) @ hessian @ (X - Y), rel=1e-12)


@pytest.mark.statement("convergence.convexity")
def test_convexity_gap_vanishes_at_the_ends_and_is_negative_where_the_function_is_concave():
    x, y = jnp.array([-0.5]), jnp.array([0.5])
    assert float(convergence.convexity_gap(quartic, x, y, 0.0)) == 0.0
    assert float(convergence.convexity_gap(quartic, x, y, 1.0)) == 0.0
    assert float(convergence.convexity_gap(quartic, x, y, 0.5)) == pytest.approx(0.5**4 - 0.5**2)


@pytest.mark.statement("convergence.convexity")
def test_convexity_gap_refuses_weights_that_are_not():
    with pytest.raises(ValueError, match="`weight` must lie in"):
        convergence.convexity_gap(quartic, jnp.ones(2), jnp.zeros(2), 1.5)
    with pytest.raises(ValueError, match="`weight` must lie in"):
        checked(convergence.convexity_gap)(quartic, jnp.ones(2), jnp.zeros(2), jnp.array(1.5))


@pytest.mark.statement("convergence.first_order_convexity")
def test_bregman_divergence_of_negative_entropy_is_the_kl_divergence(x64):
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.3, 0.1])
    divergence = convergence.bregman_divergence(lambda z: jnp.sum(z * jnp.log(z)), jnp.asarray(p), jnp.asarray(q))
    assert float(divergence) == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-12)


@pytest.mark.statement("convergence.first_order_convexity")
def test_bregman_divergence_vanishes_on_the_diagonal_also_at_a_kink():
    assert float(convergence.bregman_divergence(quartic, jnp.asarray(X), jnp.asarray(X))) == 0.0
    kink = convergence.bregman_divergence(lambda z: jnp.sum(jax.nn.relu(z)), jnp.zeros(2), jnp.zeros(2))
    assert float(kink) == 0.0


@pytest.mark.statement("convergence.smoothness_integral")
def test_bregman_integral_equals_adaptive_quadrature(x64):
    def slope(z):
        return 1 / np.cosh(z)

    def integrand(s):
        return (slope(Y + s * (X - Y)) - slope(Y)) @ (X - Y)

    expected, _ = integrate.quad(integrand, 0, 1, epsabs=1e-13)

    def objective(z):
        return jnp.sum(2 * jnp.arctan(jnp.tanh(z / 2)))

    value = convergence.bregman_integral(objective, jnp.asarray(X), jnp.asarray(Y))
    assert float(value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.statement("convergence.smoothness_integral")
@pytest.mark.parametrize("num_nodes", [2, 3, 20])
def test_bregman_integral_is_exact_for_polynomials(x64, num_nodes):
    integral = convergence.bregman_integral(quartic, jnp.asarray(X), jnp.asarray(Y), num_nodes)
    divergence = convergence.bregman_divergence(quartic, jnp.asarray(X), jnp.asarray(Y))
    assert float(integral) == pytest.approx(float(divergence), rel=1e-12)


@pytest.mark.statement("convergence.smoothness_integral")
def test_bregman_integral_needs_a_node():
    with pytest.raises(ValueError, match="`num_nodes`"):
        convergence.bregman_integral(quartic, jnp.ones(2), jnp.zeros(2), 0)


@pytest.mark.statement("convergence.quadratic_upper_bound")
def test_quadratic_upper_bound_is_tangent_plus_parabola(x64):
    bound = convergence.quadratic_upper_bound(quartic, jnp.asarray(X), jnp.asarray(Y), 7.0)
    tangent = np.sum(Y**4 - Y**2) + (4 * Y**3 - 2 * Y) @ (X - Y)
    assert float(bound) == pytest.approx(tangent + 3.5 * np.sum((X - Y) ** 2), rel=1e-12)
    at_touch = convergence.quadratic_upper_bound(quartic, jnp.asarray(Y), jnp.asarray(Y), 7.0)
    assert float(at_touch) == pytest.approx(np.sum(Y**4 - Y**2), rel=1e-12)


@pytest.mark.statement("convergence.descent_lemma")
def test_descent_certificate_exposes_a_constant_that_is_too_small(x64):
    hessian = np.diag([1.0, 4.0])

    def objective(z):
        return z @ hessian @ z / 2

    start = np.array([0.3, 1.0])
    right = convergence.descent_certificate(objective, jnp.asarray(start), 4.0)
    gradient = hessian @ start
    moved = start - gradient / 4
    assert float(right.decrease) == pytest.approx(start @ gradient / 2 - moved @ hessian @ moved / 2, rel=1e-12)
    assert float(right.guaranteed) == pytest.approx(gradient @ gradient / 8, rel=1e-12)
    assert float(right.decrease) >= float(right.guaranteed)
    wrong = convergence.descent_certificate(objective, jnp.asarray(start), 2.0)
    assert float(wrong.decrease) < float(wrong.guaranteed)


@pytest.mark.statement("convergence.descent_lemma")
def test_descent_certificate_needs_a_positive_constant():
    with pytest.raises(ValueError, match="`smoothness` must be positive"):
        convergence.descent_certificate(quartic, jnp.ones(2), 0.0)
    with pytest.raises(ValueError, match="`smoothness` must be positive"):
        checked(convergence.descent_certificate)(quartic, jnp.ones(2), jnp.array(-1.0))


@pytest.mark.statement("convergence.eps_stationarity")
def test_stationarity_is_about_the_norm_of_the_whole_tree():
    gradient = {"w": jnp.array([3.0]), "b": jnp.array(4.0)}
    assert bool(convergence.is_stationary(gradient, 5.0))
    assert not bool(convergence.is_stationary(gradient, 4.99))
    assert bool(convergence.is_stationary(jnp.zeros(3), 0.0))
    assert not bool(convergence.is_stationary(jnp.array([jnp.nan]), 1.0))
    assert bool(convergence.is_stationary({}, 0.0))
    with pytest.raises(ValueError, match="`tolerance`"):
        convergence.is_stationary(gradient, -1.0)


@pytest.mark.statement("convergence.eps_stationarity")
@pytest.mark.parametrize("norms", [[3.0, 2.0, 0.5, 2.0, 0.1], [0.5, 2.0], [3.0, 2.0, 4.0], [np.nan, 1.0], []])
def test_steps_to_stationarity_equal_a_search(norms):
    found = convergence.steps_to_stationarity(jnp.array(norms), 1.0)
    places = np.flatnonzero(np.array(norms) <= 1.0)
    assert bool(found.reached) == bool(places.size)
    assert int(found.num_steps) == (places[0] if places.size else len(norms))


@pytest.mark.statement("convergence.eps_stationarity")
def test_stationarity_bound_is_kept_by_gradient_descent_on_the_hardest_slope():
    slope, start = 0.1, 2.0  # Huber's function: constant gradient, unit curvature near the minimum
    positions = np.maximum(start - slope * np.arange(100), 0.0)
    norms = jnp.asarray(np.minimum(positions, slope))
    steps = convergence.steps_to_stationarity(norms, 0.999 * slope)
    bound = convergence.stationarity_steps_bound(1.0, slope * (start - slope / 2), 0.999 * slope)
    assert bool(steps.reached)
    assert 0.4 * float(bound) < float(steps.num_steps) <= float(bound)
