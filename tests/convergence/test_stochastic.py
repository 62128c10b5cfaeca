"""Steps of SGD and their moments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import convergence, optimization
from dltheory.debug import checked

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=3), "b": np.array(0.5)}
OPTIMUM = {"w": RNG.normal(size=3), "b": np.array(-0.2)}
GRADIENTS = {"w": RNG.normal(size=(6, 3)) + 1, "b": RNG.normal(size=6)}
CURVATURES, MINIMIZERS = np.array([1.0, 3.0, -0.5]), np.array([-1.0, 1.0, 0.3])


def flat(tree):
    return np.concatenate([tree["w"], np.asarray(tree["b"])[..., None]], axis=-1)


def step_arguments():
    """Gradients, parameters and optimum in the test's precision."""
    gradients, params, optimum = (jax.tree.map(jnp.asarray, tree) for tree in (GRADIENTS, PARAMS, OPTIMUM))
    return gradients, params, optimum


@pytest.mark.statement("convergence.sgd_distance_identity")
def test_expected_progress_equals_the_average_over_all_examples(x64):
    offset, rate = flat(PARAMS) - flat(OPTIMUM), 0.3
    after = offset - rate * flat(GRADIENTS)
    expected = offset @ offset - np.mean(np.sum(after**2, axis=1))
    progress = convergence.sgd_expected_progress(*step_arguments(), rate)
    assert float(progress) == pytest.approx(expected, rel=1e-12)


@pytest.mark.statement("convergence.sgd_distance_identity")
def test_progress_vanishes_at_the_threshold_and_at_zero(x64):
    at = step_arguments()
    threshold = convergence.sgd_progress_threshold(*at)
    assert float(convergence.sgd_expected_progress(*at, threshold)) == pytest.approx(0.0, abs=1e-12)
    assert float(convergence.sgd_expected_progress(*at, 0.0)) == 0.0
    inside, outside = (float(convergence.sgd_expected_progress(*at, factor * threshold)) for factor in (0.5, 1.5))
    assert inside > 0 > outside


@pytest.mark.statement("convergence.sgd_distance_identity")
def test_threshold_without_gradients_is_nan():
    assert np.isnan(float(convergence.sgd_progress_threshold(jnp.zeros((3, 2)), jnp.ones(2), jnp.zeros(2))))
    gradient = jax.grad(lambda g: convergence.sgd_progress_threshold(g, jnp.ones(2), jnp.zeros(2)))(jnp.ones((3, 2)))
    assert np.all(np.isfinite(gradient))


@pytest.mark.statement("convergence.sgd_quasi_convergence")
def test_gradient_noise_is_the_total_variance(x64):
    noise = convergence.gradient_noise(step_arguments()[0])
    assert float(noise) == pytest.approx(np.sum(np.var(flat(GRADIENTS), axis=0)), rel=1e-12)
    assert float(convergence.gradient_noise(jnp.ones((4, 3)))) == 0.0


@pytest.mark.statement(
    "convergence.averaging_convex_rate", "convergence.averaging_strongly_convex_rate", "convergence.polyak_averaging"
)
def test_schedule_counts_from_the_first_step(x64):
    schedule = convergence.inverse_power_schedule(0.5, 0.6)
    np.testing.assert_allclose(schedule(jnp.arange(4)), 0.5 * np.arange(1, 5.0) ** -0.6, rtol=1e-12)
    run = optimization.run_optimizer(
        optimization.gradient_descent(convergence.inverse_power_schedule(0.5, 1.0)), lambda x: x, jnp.array(0.0), 3
    )
    np.testing.assert_allclose(run.params, -0.5 * np.array([0, 1, 1.5, 1 + 1 / 2 + 1 / 3]), rtol=1e-12)
    for settings, name in (((0.0, 1.0), "scale"), ((1.0, -0.5), "power")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            convergence.inverse_power_schedule(*settings)


@pytest.mark.statement("convergence.sgd_quasi_convergence")
def test_contraction_and_radius_by_hand(x64):
    at = convergence.sgd_quasi_convergence(0.5, 2.0, 1.5, 0.1)
    assert float(at.contraction) == pytest.approx(1 - 2 * 0.1 * 0.5 * 0.8, rel=1e-12)
    assert float(at.radius) == pytest.approx(0.1 * 1.5 / (0.5 * 0.8), rel=1e-12)
    # B is the fixed point of the recursion behind it: r -> A r + 2 eta^2 sigma^2
    assert float(at.contraction * at.radius + 2 * 0.1**2 * 1.5) == pytest.approx(float(at.radius), rel=1e-12)


@pytest.mark.statement("convergence.sgd_quasi_convergence")
@pytest.mark.parametrize("learning_rate", [0.5, 0.7, 0.0, -0.1])
def test_step_sizes_outside_the_theorem_give_nan(learning_rate):
    constants = jnp.array(0.5), jnp.array(2.0), jnp.array(1.5), jnp.array(learning_rate)
    assert np.isnan(convergence.sgd_quasi_convergence(*constants)).all()
    with pytest.raises(ValueError, match="`learning_rate` must lie in"):
        checked(convergence.sgd_quasi_convergence)(*constants)
    with pytest.raises(ValueError, match="`learning_rate` must lie in"):
        convergence.sgd_quasi_convergence(0.5, 2.0, 1.5, learning_rate)


@pytest.mark.statement("convergence.sgd_quasi_convergence")
def test_exact_moments_equal_the_average_over_all_paths(x64):
    rate, start, num_steps = 0.3, 2.0, 5
    optimum = CURVATURES @ MINIMIZERS / CURVATURES.sum()
    paths = []
    for drawn in itertools.product(range(3), repeat=num_steps):
        theta = [start]
        for k in drawn:
            theta.append(theta[-1] - rate * CURVATURES[k] * (theta[-1] - MINIMIZERS[k]))
        paths.append(np.array(theta) - optimum)
    moments = convergence.exact_sgd_moments(jnp.asarray(CURVATURES), jnp.asarray(MINIMIZERS), rate, start, num_steps)
    np.testing.assert_allclose(moments.mean, np.mean(paths, 0), rtol=1e-11)
    np.testing.assert_allclose(moments.second_moment, np.mean(np.square(paths), 0), rtol=1e-11)


@pytest.mark.statement("convergence.sgd_quasi_convergence")
def test_exact_moments_of_equal_components_are_gradient_descent(x64):
    moments = convergence.exact_sgd_moments(jnp.full(3, 2.0), jnp.full(3, 1.0), 0.2, 4.0, 10)
    np.testing.assert_allclose(moments.mean, 3 * 0.6 ** np.arange(11), rtol=1e-12)
    np.testing.assert_allclose(moments.second_moment, 9 * 0.36 ** np.arange(11), rtol=1e-12)


@pytest.mark.statement("convergence.sgd_quasi_convergence")
def test_exact_moments_need_a_mean_that_is_convex():
    with pytest.raises(ValueError, match="`curvatures` must have a positive mean"):
        checked(convergence.exact_sgd_moments)(jnp.array([1.0, -2.0]), jnp.zeros(2), 0.1, 1.0, num_steps=2)
    with pytest.raises(ValueError, match="`num_steps`"):
        convergence.exact_sgd_moments(jnp.ones(2), jnp.zeros(2), 0.1, 1.0, num_steps=-1)
