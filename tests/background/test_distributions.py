"""Exponential, Bernoulli, binomial and Poisson distributions."""

from decimal import Decimal, localcontext
from math import comb, factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import background, debug

_binomial = jax.jit(jax.vmap(background.binomial_logpmf))
_poisson = jax.jit(jax.vmap(background.poisson_logpmf))
_bernoulli = jax.jit(jax.vmap(background.bernoulli_logpmf))
_exponential = jax.jit(jax.vmap(background.exponential_logpdf))


def grid(*axes):
    return tuple(axis.ravel() for axis in np.meshgrid(*axes))


@pytest.mark.statement("background.exponential")
def test_exponential_logpdf_equals_scipy(x64):
    x, rate = grid([-1.0, 0.0, 0.3, 50.0], [0.1, 2.0])
    np.testing.assert_allclose(_exponential(x, rate), stats.expon.logpdf(x, scale=1 / rate), rtol=1e-14, atol=1e-15)


@pytest.mark.statement("background.bernoulli")
def test_bernoulli_logpmf_at_all_outcomes(x64):
    x, p = grid([0, 1], [0.0, 1e-9, 0.3, 1.0])
    np.testing.assert_allclose(_bernoulli(x, p), stats.bernoulli.logpmf(x, p), rtol=1e-14)
    np.testing.assert_array_equal(_bernoulli(np.array([-1.0, 0.5, 2.0]), np.full(3, 0.3)), np.full(3, -np.inf))


@pytest.mark.statement("background.binomial")
def test_binomial_logpmf_equals_scipy(x64):
    x, n, p = grid(np.arange(-1, 42), [0, 1, 17, 40], [0.0, 1e-9, 0.3, 0.97, 1.0])
    expected = stats.binom.logpmf(x, n, p)
    np.testing.assert_allclose(_binomial(x, n, p), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.statement("background.binomial")
def test_binomial_logpmf_of_a_million_trials(x64):
    """Logarithms of factorials, of size 10^7, would leave an error of 10^-9 here."""
    n, p, counts = 10**6, 0.3, [0, 17, 299_000, 300_000, 300_400]
    with localcontext(prec=50):
        exact = [
            float(Decimal(comb(n, k)).ln() + k * Decimal(p).ln() + (n - k) * (1 - Decimal(p)).ln())
            for k in counts[:2]
        ]
    found = _binomial(np.array(counts), np.full(5, n), np.full(5, p))
    np.testing.assert_allclose(found[:2], exact, rtol=1e-15)
    np.testing.assert_allclose(found[2:], stats.binom.logpmf(counts[2:], n, p), rtol=1e-8)


@pytest.mark.statement("background.poisson")
def test_poisson_logpmf_is_precise(x64):
    x, rate = grid([0, 1, 2, 15, 16, 17, 300], [1e-9, 0.5, 16.0, 310.0])
    with localcontext(prec=50):
        exact = [
            float(k * Decimal(m).ln() - Decimal(m) - Decimal(factorial(k)).ln())
            for k, m in zip(x.astype(int).tolist(), rate.tolist(), strict=True)
        ]
    np.testing.assert_allclose(_poisson(x, rate), exact, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(_poisson(np.array([0, 1, -1]), np.zeros(3)), [0, -np.inf, -np.inf])


@pytest.mark.statement("background.binomial", "background.poisson")
def test_single_precision_keeps_the_digits_of_large_counts():
    counts = np.array([29_900, 30_000])
    found = _binomial(counts, np.full(2, 100_000), jnp.full(2, 0.3))
    np.testing.assert_allclose(found, stats.binom.logpmf(counts, 100_000, np.float32(0.3)), rtol=1e-4)
    found = _poisson(counts, jnp.full(2, 3e4))
    np.testing.assert_allclose(found, stats.poisson.logpmf(counts, 3e4), rtol=1e-4)


@pytest.mark.statement("background.bernoulli", "background.binomial", "background.poisson")
def test_scores_where_a_parameter_is_at_the_edge(x64):
    bernoulli = jax.jit(jax.vmap(jax.grad(background.bernoulli_logpmf, 1)))
    np.testing.assert_allclose(bernoulli(np.array([0, 1]), np.array([0.0, 1.0])), [-1, 1])
    binomial = jax.jit(jax.vmap(jax.grad(background.binomial_logpmf, 2), in_axes=(0, None, 0)))
    scores = binomial(np.array([0, 5, 2, 3, 6]), 5, np.array([0.0, 1.0, 0.4, 0.0, 0.5]))
    np.testing.assert_allclose(scores[:3], [-5, 5, 0], atol=1e-14)
    assert np.all(np.isfinite(scores))  # of impossible outcomes too
    poisson = jax.jit(jax.vmap(jax.grad(background.poisson_logpmf, 1)))
    np.testing.assert_allclose(poisson(np.array([0, 3]), np.array([0.0, 2.0])), [-1, 0.5])


@pytest.mark.statement("background.binomial")
def test_binomial_laws_of_two_sums_convolve(x64):
    def law(n):
        return np.exp(_binomial(np.arange(n + 1), np.full(n + 1, n), np.full(n + 1, 0.3)))

    np.testing.assert_allclose(np.convolve(law(4), law(9)), law(13), rtol=1e-12)


@pytest.mark.statement("background.exponential", "background.bernoulli", "background.binomial", "background.poisson")
@pytest.mark.parametrize(
    ("function", "args", "argument"),
    [
        (background.exponential_logpdf, (1.0, 0.0), "rate"),
        (background.exponential_logpdf, (1.0, -1.0), "rate"),
        (background.bernoulli_logpmf, (1, 1.2), "p"),
        (background.binomial_logpmf, (1, 3, -0.1), "p"),
        (background.binomial_logpmf, (1, -3, 0.1), "n"),
        (background.binomial_logpmf, (1, 2.5, 0.1), "n"),
        (background.poisson_logpmf, (1, -0.1), "rate"),
    ],
)
def test_values_outside_the_domain(function, args, argument):
    args = tuple(map(jnp.asarray, args))
    assert np.isnan(jax.jit(function)(*args))
    with pytest.raises(ValueError, match=f"`{argument}`"):
        debug.checked(function)(*args)
