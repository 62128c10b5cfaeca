"""Rates as functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import convergence, optimization
from dltheory.debug import checked


@pytest.mark.statement("convergence.polyak_pl_rate")
def test_polyak_rate_is_a_power(x64):
    for steps in (0, 1, 7, 1000):
        bound = convergence.polyak_rate_bound(0.3, 2.0, steps, 1.5)
        assert float(bound) == pytest.approx((1 - 0.15) ** steps * 1.5, rel=1e-12)


@pytest.mark.statement("convergence.nesterov_rate")
def test_nesterov_rate_is_a_power(x64):
    for steps in (0, 1, 7, 1000):
        bound = convergence.nesterov_rate_bound(0.5, 2.0, steps, 1.5)
        assert float(bound) == pytest.approx(1.25 * 0.5**steps * 1.5**2, rel=1e-12)


@pytest.mark.statement("convergence.polyak_pl_rate", "convergence.nesterov_rate")
def test_rates_are_accurate_for_huge_condition_numbers_in_single_precision():
    polyak = convergence.polyak_rate_bound(jnp.float32(1e-8), jnp.float32(1), jnp.float32(1e8), jnp.float32(1))
    assert polyak.dtype == jnp.float32
    assert float(polyak) == pytest.approx(np.exp(-1), rel=1e-5)
    nesterov = convergence.nesterov_rate_bound(
        jnp.float32(1e-16), jnp.float32(1), jnp.float32(1e8), jnp.float32(np.sqrt(2))
    )
    assert float(nesterov) == pytest.approx(np.exp(-1), rel=1e-5)


@pytest.mark.statement("convergence.polyak_pl_rate", "convergence.nesterov_rate")
@pytest.mark.parametrize("bound", [convergence.polyak_rate_bound, convergence.nesterov_rate_bound])
def test_rates_at_the_ends_of_their_range(bound):
    one = jnp.array(1.0)
    assert float(bound(one, one, 0, one)) == 1.0  # a perfectly conditioned objective: done after one step
    assert float(bound(one, one, 1, one)) == 0.0
    flat = [float(bound(jnp.array(0.0), one, steps, one)) for steps in (0, 1000)]
    assert flat[0] == flat[1] > 0  # no curvature, no rate
    for outside in (jnp.array(1.5), jnp.array(-0.5)):
        assert np.isnan(float(bound(outside, one, 3, one)))
        with pytest.raises(ValueError, match=r"must lie in \[0, smoothness\]"):
            checked(bound)(outside, one, 3, one)
    with pytest.raises(ValueError, match=r"must lie in \[0, smoothness\]"):
        bound(2.0, 1.0, 3, 1.0)
    gradient = jax.grad(lambda mu: bound(mu, one, 3, one))
    assert all(np.isfinite(float(gradient(jnp.array(mu)))) for mu in (0.5, 1.0))


@pytest.mark.statement("convergence.polyak_pl_rate", "convergence.nesterov_rate")
def test_both_methods_keep_their_bounds_on_one_problem(x64):
    problem = optimization.quadratic(jnp.diag(jnp.array([0.02, 0.3, 1.0])))
    start = jnp.array([1.0, -2.0, 0.5])
    slow = optimization.run_optimizer(optimization.gradient_descent(1.0), problem.value, start, 60)
    settings = optimization.nesterov_optimal(problem.strong_convexity, problem.smoothness)
    fast = optimization.run_optimizer(optimization.nesterov(*settings), problem.value, start, 60)
    accelerated = jax.vmap(problem.value)(fast.state.iterate)
    for t in (1, 20, 60):
        polyak = convergence.polyak_rate_bound(problem.pl_constant, problem.smoothness, t, slow.value[0])
        nesterov = convergence.nesterov_rate_bound(
            problem.strong_convexity, problem.smoothness, t, jnp.linalg.norm(start)
        )
        assert float(slow.value[t]) <= float(polyak)
        assert float(accelerated[t]) <= float(nesterov)
    assert float(accelerated[60]) < 1e-2 * float(slow.value[60])


@pytest.mark.statement("convergence.averaging_convex_rate")
def test_convex_bound_is_smallest_for_its_best_scale(x64):
    best = 3.0 / (np.sqrt(2) * 2.0)
    values = [float(convergence.sgd_convex_bound(3.0, 2.0, scale, 25)) for scale in (0.9 * best, best, 1.1 * best)]
    assert values[1] == pytest.approx(np.sqrt(2) * 3.0 * 2.0 / 5, rel=1e-12)
    assert values[1] < min(values[0], values[2])


@pytest.mark.statement("convergence.averaging_convex_rate")
def test_convex_bound_holds_for_every_run_of_subgradient_descent_without_noise(x64):
    theta, total, bounds, gaps = 1.0, 0.0, [], []
    for t in range(1, 200):
        total += theta
        gaps.append(abs(total / t))
        bounds.append(float(convergence.sgd_convex_bound(2.0, 1.0, 1.0, t)))
        theta = np.clip(theta - np.sign(theta) / np.sqrt(t), -1, 1)
    assert np.all(np.array(gaps) <= bounds)


@pytest.mark.statement("convergence.averaging_strongly_convex_rate", "convergence.averaging_smooth_rate")
def test_strongly_convex_and_smooth_bounds_by_hand(x64):
    strongly_convex = convergence.sgd_strongly_convex_bound(3.0, 0.5, 10)
    assert float(strongly_convex) == pytest.approx(0.9 * (1 + np.log(10)), rel=1e-12)
    assert float(convergence.sgd_smooth_bound(3.0, 0.5, 2.0, 10)) == pytest.approx(14.4, rel=1e-12)


@pytest.mark.statement("convergence.averaging_smooth_rate")
def test_smooth_bound_follows_from_the_recursion_of_its_proof(x64):
    """The squared distance obeys a' <= (1 - 2/t) a + G^2 / (mu t)^2 and never exceeds G^2 / mu^2."""
    gradient_bound, mu = 3.0, 0.5
    distance = (gradient_bound / mu) ** 2
    for t in range(1, 1000):
        assert 0.5 * distance <= float(convergence.sgd_smooth_bound(gradient_bound, mu, 1.0, t)) * (1 + 1e-12)
        step = (gradient_bound / (mu * t)) ** 2
        distance = min((gradient_bound / mu) ** 2, max(0.0, 1 - 2 / t) * distance + step)


@pytest.mark.statement(
    "convergence.averaging_convex_rate",
    "convergence.averaging_strongly_convex_rate",
    "convergence.averaging_smooth_rate",
    "convergence.eps_stationarity",
)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: convergence.sgd_convex_bound(1.0, 1.0, 0.0, 5), "scale"),
        (lambda: convergence.sgd_convex_bound(1.0, 1.0, 1.0, 0), "num_iterates"),
        (lambda: convergence.sgd_strongly_convex_bound(1.0, 0.0, 5), "strong_convexity"),
        (lambda: convergence.sgd_strongly_convex_bound(1.0, 1.0, 0), "num_iterates"),
        (lambda: convergence.sgd_smooth_bound(1.0, -1.0, 1.0, 5), "strong_convexity"),
        (lambda: convergence.stationarity_steps_bound(0.0, 1.0, 1.0), "smoothness"),
        (lambda: convergence.stationarity_steps_bound(1.0, -1.0, 1.0), "gap0"),
        (lambda: convergence.stationarity_steps_bound(1.0, 1.0, 0.0), "tolerance"),
    ],
)
def test_constants_out_of_range_are_refused(call, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        call()
