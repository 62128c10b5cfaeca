"""Estimators of smoothness, strong convexity and PL constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import convergence
from dltheory.debug import checked

KEY = jax.random.key(0)
L, MU = convergence.smoothness_constant, convergence.strong_convexity_constant
SMOOTHNESS = pytest.mark.statement("convergence.lipschitz_smoothness")
STRONG_CONVEXITY = pytest.mark.statement("convergence.strong_convexity")
BOTH = pytest.mark.statement("convergence.lipschitz_smoothness", "convergence.strong_convexity")


def with_hessian(hessian):
    return lambda x: x @ jnp.asarray(hessian, x.dtype) @ x / 2


def estimate(estimator, objective, points, **settings):
    """The estimate by one compiled program."""
    return jax.jit(lambda key, at: estimator(key, objective, at, **settings))(KEY, points)


def both(objective, points, **settings):
    """Estimates of smoothness and of strong convexity by one compiled program."""
    return jax.jit(lambda key, at: [estimator(key, objective, at, **settings) for estimator in (L, MU)])(KEY, points)


def network(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
    return jnp.mean((hidden @ params["v"] - targets) ** 2)


@pytest.mark.statement(
    "convergence.lipschitz_smoothness", "convergence.strong_convexity", "convergence.hessian_sandwich"
)
def test_estimates_on_a_network_equal_the_dense_spectrum(x64):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(8, 2)), rng.normal(size=8)
    points = {"w": rng.normal(size=(3, 2, 3)), "b": rng.normal(size=(3, 3)), "v": rng.normal(size=(3, 3))}
    points = jax.tree.map(jnp.asarray, points)

    def objective(params):
        return network(params, inputs, targets)

    spectra = jax.jit(jax.vmap(lambda point: convergence.hessian_spectrum_bounds(objective, point)))(points)
    radii = np.maximum(-spectra.smallest, spectra.largest)
    largest = estimate(L, objective, points, max_steps=5000, tolerance=1e-6)
    assert bool(largest.converged)
    assert float(largest.value) == pytest.approx(radii.max(), rel=1e-6)
    assert int(largest.point) == np.argmax(radii)
    smallest = estimate(MU, objective, points, max_steps=50_000, tolerance=1e-6)
    assert bool(smallest.converged)
    assert float(smallest.value) == pytest.approx(spectra.smallest.min(), abs=1e-6 * radii.max())
    assert int(smallest.point) == np.argmin(spectra.smallest)


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extremes_of_a_diagonal_hessian(x64, dtype):
    point = jnp.zeros((1, 4), dtype)
    objective = with_hessian(np.diag([0.5, 1.0, 3.0, 8.0]))
    largest, smallest = both(objective, point)
    assert largest.value.dtype == smallest.value.dtype == dtype
    assert bool(largest.converged & smallest.converged)
    assert float(largest.value) == pytest.approx(8.0, rel=5e-4)
    assert float(smallest.value) == pytest.approx(0.5, abs=4e-3)


@BOTH
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_estimates_do_not_mind_the_units_of_the_objective(scale):
    objective = with_hessian(scale * np.diag([0.5, 1.0, 3.0, 8.0]))
    for found, expected in zip(both(objective, jnp.zeros((1, 4))), (8.0, 0.5), strict=True):
        assert bool(found.converged)
        assert float(found.value) / scale == pytest.approx(expected, abs=4e-3)


@SMOOTHNESS
def test_eigenvalues_of_equal_size_and_opposite_sign_do_not_oscillate():
    found = estimate(L, with_hessian(np.diag([2.0, -2.0, 1.0])), jnp.zeros((1, 3)))
    assert bool(found.converged)
    assert float(found.value) == pytest.approx(2.0, rel=1e-4)


@STRONG_CONVEXITY
def test_a_concave_direction_makes_the_constant_negative():
    found = estimate(MU, with_hessian(np.diag([2.0, -5.0, 1.0])), jnp.zeros((1, 3)))
    assert bool(found.converged)
    assert float(found.value) == pytest.approx(-5.0, rel=1e-3)


@BOTH
@pytest.mark.parametrize(("curvature", "expected"), [(0.0, 0.0), (3.0, 3.0)])
def test_multiples_of_the_identity_converge_at_once(curvature, expected):
    objective = with_hessian(curvature * np.eye(3))
    for found in both(objective, jnp.ones((2, 3))):
        assert bool(found.converged)
        assert int(found.num_steps) <= 4
        assert float(found.value) == pytest.approx(expected, abs=1e-6)


@BOTH
def test_stopping_early_is_flagged():
    objective = with_hessian(np.diag([1.0, 0.999, 0.01]))
    for found in both(objective, jnp.zeros((1, 3)), max_steps=2, tolerance=1e-9):
        assert not bool(found.converged)
        assert int(found.num_steps) >= 2


@BOTH
def test_a_hessian_that_is_not_finite_is_flagged():
    for found in both(lambda x: jnp.sum(jnp.sqrt(x)), jnp.array([[1.0, 0.0]])):
        assert bool(jnp.isnan(found.value))
        assert not bool(found.converged)


@BOTH
@pytest.mark.parametrize(("setting", "value"), [("max_steps", 0), ("tolerance", 0.0)])
def test_settings_out_of_range_are_refused(setting, value):
    for estimator in (L, MU):
        with pytest.raises(ValueError, match=f"`{setting}`"):
            estimator(KEY, lambda x: jnp.sum(x**2), jnp.ones((1, 2)), **{setting: value})


@BOTH
def test_points_need_a_leading_axis():
    for estimator in (L, MU):
        with pytest.raises(ValueError, match="leaves of `points` must share one leading axis"):
            estimator(KEY, lambda x: jnp.sum(x**2), jnp.ones((0, 2)))


@pytest.mark.statement("convergence.pl_condition", "convergence.strong_convexity_implies_pl")
def test_pl_constant_equals_the_smallest_ratio(x64):
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 4))
    hessian, points = root @ root.T, rng.normal(size=(50, 4))
    ratios = np.sum((points @ hessian) ** 2, 1) / np.einsum("nd,de,ne->n", points, hessian, points)
    constant = jax.jit(lambda points: convergence.pl_constant(with_hessian(hessian), points, 0.0))(points)
    assert float(constant) == pytest.approx(ratios.min(), rel=1e-12)
    assert float(constant) >= np.linalg.eigvalsh(hessian)[0]


@pytest.mark.statement("convergence.pl_condition")
def test_pl_constant_sees_past_flat_directions(x64):
    objective = with_hessian(np.diag([2.0, 0.5, 0.0]))
    points = np.eye(3)[:2] + np.eye(3)[2:]
    assert float(jax.jit(lambda points: convergence.pl_constant(objective, points, 0.0))(points)) == 0.5
    strong = estimate(MU, objective, jnp.zeros((1, 3)), tolerance=1e-6)
    assert float(strong.value) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.statement("convergence.pl_condition")
def test_pl_constant_at_and_below_the_minimum():
    def square(x):
        return jnp.sum(x**2)

    @jax.jit
    def constant(points, minimum):
        return convergence.pl_constant(square, points, minimum)

    assert float(constant(jnp.zeros((2, 1)), 0.0)) == np.inf
    assert float(constant(jnp.array([[0.0], [1.0]]), 0.0)) == 2.0
    assert np.isnan(float(constant(jnp.ones((2, 1)), 2.0)))
    with pytest.raises(ValueError, match="`minimum` must not exceed"):
        checked(constant)(jnp.ones((2, 1)), 2.0)
    gradient = jax.jit(jax.grad(constant))(jnp.array([[0.0], [1.0]]), 0.0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.statement("convergence.hessian_sandwich")
def test_spectrum_bounds_of_logistic_regression(x64):
    rng = np.random.default_rng(2)
    features, weights, ridge = rng.normal(size=(20, 3)), rng.normal(size=3), 0.1

    def objective(w):
        return jnp.mean(jax.nn.softplus(-features @ w)) + ridge / 2 * w @ w

    bounds = jax.jit(lambda w: convergence.hessian_spectrum_bounds(objective, w))(weights)
    p = 1 / (1 + np.exp(-features @ weights))
    eigenvalues = np.linalg.eigvalsh(features.T * (p * (1 - p)) @ features / 20 + ridge * np.eye(3))
    np.testing.assert_allclose(bounds, eigenvalues[[0, -1]], rtol=1e-10)
    assert ridge <= float(bounds.smallest) <= float(bounds.largest) <= ridge + np.linalg.norm(features, 2) ** 2 / 80


@pytest.mark.statement("convergence.hessian_sandwich")
def test_spectrum_bounds_need_a_scalar():
    with pytest.raises(ValueError, match="`objective_fn` must return a scalar"):
        convergence.hessian_spectrum_bounds(lambda x: x, jnp.ones(2))
