"""Conditioning a Gaussian process, its evidence, and the kurtosis of samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import debug, nngp

_RNG = np.random.default_rng(0)
FEATURES = _RNG.normal(size=(7, 9))
KERNEL = FEATURES @ FEATURES.T
Y = _RNG.normal(size=(5, 2))
CONDITIONAL = pytest.mark.statement("nngp.gp_conditional")
_condition = jax.jit(nngp.gp_condition)
_evidence = jax.jit(nngp.gp_evidence)


@CONDITIONAL
def test_conditional_equals_the_formula(x64):
    found = _condition(KERNEL[:5, :5], KERNEL[5:, :5], KERNEL[5:, 5:], Y, noise=0.1)
    gain = np.linalg.solve(KERNEL[:5, :5] + 0.1 * np.eye(5), KERNEL[:5, 5:]).T
    np.testing.assert_allclose(found.mean, gain @ Y, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, KERNEL[5:, 5:] - gain @ KERNEL[:5, 5:], rtol=1e-10)
    assert int(found.rank) == 5
    assert float(found.misfit) == 0


@CONDITIONAL
def test_singular_kernels_take_the_pseudo_inverse_and_say_so(x64):
    thin = FEATURES[:, :2]
    kernel = thin @ thin.T
    found = _condition(kernel[:5, :5], kernel[5:, :5], kernel[5:, 5:], Y, noise=0.0)
    weights, residual, _, _ = np.linalg.lstsq(thin[:5], Y, rcond=None)
    np.testing.assert_allclose(found.mean, thin[5:] @ weights, rtol=1e-9)
    assert int(found.rank) == 2
    assert float(found.misfit) == pytest.approx(np.sqrt(residual.sum()), rel=1e-9)


@CONDITIONAL
def test_duplicated_inputs_in_single_precision():
    kernel = np.tile(KERNEL[:3, :3], (2, 2)).astype(np.float32)
    y = np.array([1.0, 2, 3, 3, 2, 1], np.float32)  # conflicting labels: their mean is the best there is
    found = _condition(kernel, kernel[:3], kernel[:3, :3], y)
    np.testing.assert_allclose(found.mean, [2, 2, 2], rtol=1e-3)
    assert int(found.rank) == 3
    assert np.all(np.diag(found.covariance) >= 0)


@CONDITIONAL
def test_evidence_is_the_density(x64):
    found = _evidence(KERNEL[:5, :5], Y, noise=0.1)
    covariance: Any = KERNEL[:5, :5] + 0.1 * np.eye(5)
    density = stats.multivariate_normal(np.zeros(5), covariance)
    assert float(found.log_evidence) == pytest.approx(density.logpdf(Y.T).sum(), rel=1e-12)


@CONDITIONAL
def test_evidence_of_a_singular_kernel(x64):
    thin = FEATURES[:5, :2]
    inside = thin @ np.array([0.3, -1.2])
    found = _evidence(thin @ thin.T, inside)
    covariance: Any = thin @ thin.T
    density = stats.multivariate_normal(np.zeros(5), covariance, allow_singular=True)
    assert int(found.rank) == 2
    assert float(found.log_evidence) == pytest.approx(density.logpdf(inside), rel=1e-9)
    assert float(_evidence(thin @ thin.T, np.ones(5)).log_evidence) == -np.inf


@CONDITIONAL
def test_gradient_of_the_evidence_chooses_the_noise(x64):
    def evidence(noise):
        return nngp.gp_evidence(jnp.asarray(KERNEL[:5, :5]), jnp.asarray(Y), noise=noise).log_evidence

    valued = jax.jit(jax.value_and_grad(evidence))
    slope = float(valued(0.1)[1])
    assert slope == pytest.approx(float(valued(0.1 + 1e-6)[0] - valued(0.1 - 1e-6)[0]) / 2e-6, rel=1e-6)


@CONDITIONAL
def test_bad_values():
    with pytest.raises(ValueError, match="`noise`"):
        debug.checked(_evidence)(jnp.eye(2), jnp.ones(2), noise=jnp.array(-1.0))
    bad = jnp.eye(2).at[0, 0].set(jnp.nan)
    assert np.all(np.isnan(_condition(bad, jnp.ones((1, 2)), jnp.eye(1), jnp.ones(2)).mean))


@CONDITIONAL
def test_gradient_at_a_singular_kernel_turns_its_null_space(x64):
    """A covariance of rank 3 of 6 that moves at constant rank, and observations that it cannot produce."""
    rng = np.random.default_rng(0)
    base, direction = rng.normal(size=(2, 6, 3))
    cross, y = jnp.asarray(rng.normal(size=(2, 6))), jnp.arange(6.0)

    def mean(step):
        factor = base + step * direction
        return jnp.sum(nngp.gp_condition(factor @ factor.T, cross, jnp.eye(2), y).mean)

    h, valued = 1e-5, jax.jit(jax.value_and_grad(mean))
    assert float(valued(0.0)[1]) == pytest.approx(float(valued(h)[0] - valued(-h)[0]) / (2 * h), rel=1e-6)


NOT_COVARIANCES = {
    "indefinite": ([[1.0, 2.0], [2.0, 1.0]], 0.0),
    "negative": ([[-1.0, 0.0], [0.0, -1.0]], 0.0),
    "asymmetric": ([[1.0, 0.5], [0.0, 1.0]], 0.0),
    "negative noise": ([[1.0, 0.0], [0.0, 1.0]], -0.5),
}


@CONDITIONAL
@pytest.mark.parametrize("name", NOT_COVARIANCES)
def test_what_is_no_covariance_gives_nan(name):
    matrix, noise = NOT_COVARIANCES[name]
    posterior = _condition(jnp.array(matrix), jnp.ones((1, 2)), jnp.ones((1, 1)), jnp.ones(2), noise=noise)
    assert jnp.isnan(posterior.mean).all()
    assert jnp.isnan(_evidence(jnp.array(matrix), jnp.ones(2), noise=noise).log_evidence)


@CONDITIONAL
def test_integer_covariances_are_numbers_too():
    posterior = _condition(jnp.eye(2, dtype=int), jnp.ones((1, 2), int), jnp.ones((1, 1), int), jnp.arange(2))
    assert posterior.mean.item() == 1.0


@pytest.mark.statement("nngp.finite_width_nongaussian")
def test_excess_kurtosis_equals_scipy(x64):
    samples = _RNG.normal(size=50) ** 3
    assert float(nngp.excess_kurtosis(jnp.asarray(samples))) == pytest.approx(stats.kurtosis(samples), rel=1e-12)
    assert float(nngp.excess_kurtosis(jnp.asarray(1e200 * samples))) == pytest.approx(stats.kurtosis(samples), rel=1e-9)
    assert float(nngp.excess_kurtosis(jnp.ones(3))) == 0
    with pytest.raises(ValueError, match="`samples`"):
        nngp.excess_kurtosis(jnp.ones(1))
