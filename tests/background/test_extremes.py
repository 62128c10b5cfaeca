"""Inputs at which the plain formulae overflow, cancel or divide by zero."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import background
from dltheory.debug import checked


@pytest.mark.statement("background.gaussian_kl")
@pytest.mark.parametrize("variance", [1e-20, 1e-8, 1e-6, 1e-3, 0.9, 1.0, 1.1, 1e3, 1e8])
def test_divergence_of_normal_laws_of_very_different_width(variance):
    """Both forms in single precision against the formula for one variance, written down in double precision."""
    mean = np.array([0.5, -1.0, 0.25])
    p, q = (mean, np.full(3, variance)), (np.zeros(3), np.ones(3))
    expected = 0.5 * np.sum(p[0] ** 2 + p[1] - 1 - np.log(p[1]))
    (mean_p, var_p), (mean_q, var_q) = ((jnp.float32(m), jnp.float32(v)) for m, v in (p, q))
    full = background.gaussian_kl(mean_p, jnp.diag(var_p), mean_q, jnp.diag(var_q))
    assert float(full) == pytest.approx(expected, rel=2e-6)
    assert float(background.gaussian_kl_diag(mean_p, var_p, mean_q, var_q)) == pytest.approx(expected, rel=2e-6)


@pytest.mark.statement("background.gaussian_kl")
def test_the_diagonal_form_is_the_full_one_of_diagonal_matrices(x64):
    rng = np.random.default_rng(0)
    mean_p, mean_q = rng.normal(size=(2, 4))
    var_p, var_q = np.exp(rng.normal(size=(2, 4)))
    full = background.gaussian_kl(mean_p, jnp.diag(var_p), mean_q, jnp.diag(var_q))
    assert float(background.gaussian_kl_diag(mean_p, var_p, mean_q, var_q)) == pytest.approx(float(full), rel=1e-13)


@pytest.mark.statement("background.gaussian_kl")
def test_divergence_that_overflows_is_infinite_and_not_minus_infinity():
    wide, narrow, mean = jnp.array([1e20]), jnp.array([1e-20]), jnp.zeros(1)
    assert float(background.gaussian_kl_diag(mean, wide, mean, narrow)) == np.inf


@pytest.mark.statement("background.gaussian_process")
def test_a_kernel_that_is_no_kernel_is_not_mended():
    def kernel(x1, x2):
        return 1.0 + jnp.abs(jnp.sign(x1 - x2.T))  # [[1, 2], [2, 1]], with the eigenvalue -1

    x = jnp.array([[0.0], [1.0]])
    assert np.isnan(background.gp_sample(jax.random.key(0), kernel, x)).all()
    assert np.isnan(background.gp_posterior(kernel, x, jnp.ones(2), x, jnp.array(0.0)).mean).all()


@pytest.mark.statement("background.holder")
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, np.inf])
def test_extremal_vector_has_finite_derivatives_where_entries_vanish(p, x64):
    jacobian = jax.jacobian(background.holder_extremal)
    assert np.isfinite(jacobian(jnp.array([3.0, 0.0, -4.0]), jnp.array(p))).all()
    assert np.isfinite(jacobian(jnp.zeros(2), jnp.array(p))).all()


@pytest.mark.statement("background.holder")
@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_norm_of_a_vector_with_an_infinite_entry(p):
    assert float(background.p_norm(jnp.array([1.0, -jnp.inf]), jnp.array(p))) == np.inf


@pytest.mark.statement("background.hoeffding")
def test_bound_of_what_is_not_a_number():
    assert np.isnan(background.hoeffding_bound(jnp.ones(3), jnp.array(jnp.nan)))
    assert np.isnan(background.hoeffding_bound(jnp.array([1.0, jnp.nan]), jnp.array(0.1)))


@pytest.mark.statement("background.markov")
def test_chernoff_bound_at_an_integer():
    assert float(background.chernoff_bound(lambda t: t**2 / 2, jnp.array(2))) == pytest.approx(np.exp(-2), rel=1e-6)


@pytest.mark.statement("background.mgf_sum")
def test_generating_function_of_a_sum_of_three(x64):
    three = [lambda t, rate=rate: background.poisson_log_mgf(jnp.array(rate), t) for rate in (0.5, 1.0, 2.0)]
    t = jnp.array(0.7)
    expected = 3.5 * np.expm1(0.7)  # the sum of Poisson variables is one of the summed rates
    assert float(background.log_mgf_of_sum(*three)(t)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.statement("background.entropy", "background.kl_divergence")
def test_zeros_in_numpy_arrays_of_double_precision():
    certain: Any = np.array([1.0, 0.0])
    fair: Any = np.array([0.5, 0.5])
    third: Any = np.full(3, 1 / 3)
    assert float(background.entropy(certain)) == 0.0
    assert float(background.cross_entropy(certain, certain)) == 0.0
    assert float(background.kl_discrete(certain, fair)) == pytest.approx(np.log(2), rel=1e-6)
    assert float(checked(background.entropy)(third)) == pytest.approx(np.log(3), rel=1e-6)
