"""Moment generating functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dltheory import background, debug

_coin = jax.jit(jax.vmap(background.bernoulli_log_mgf, in_axes=(None, 0)))
_coins = jax.jit(background.binomial_log_mgf)
_poisson = jax.jit(background.poisson_log_mgf)
_empirical = jax.jit(background.empirical_log_mgf)

ARGUMENTS = np.array([-50.0, -1.0, -1e-9, 0.0, 1e-9, 0.7, 1.0, 50.0])


@pytest.mark.statement("background.mgf")
def test_bernoulli_log_mgf_near_zero_and_far_from_it(x64):
    for p in (0.0, 1e-9, 0.3, 1.0):
        found = np.asarray(_coin(p, ARGUMENTS))
        with np.errstate(divide="ignore"):
            expected = np.logaddexp(np.log(1 - p), np.log(p) + ARGUMENTS)
        small = np.abs(ARGUMENTS) <= 1e-9
        np.testing.assert_allclose(found[~small], expected[~small], rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(found[small], p * ARGUMENTS[small], rtol=2e-9)


@pytest.mark.statement("background.mgf")
def test_log_mgfs_of_counts_equal_sums(x64):
    counts = np.arange(200)
    for t in (-1.0, 0.5, 1.0):
        binomial = special.logsumexp(t * counts, b=stats.binom.pmf(counts, 12, 0.3))
        assert float(_coins(12, 0.3, t)) == pytest.approx(binomial, rel=1e-13)
        poisson = special.logsumexp(t * counts, b=stats.poisson.pmf(counts, 2.0))
        assert float(_poisson(2.0, t)) == pytest.approx(poisson, rel=1e-13)


@pytest.mark.statement("background.mgf")
def test_exponential_log_mgf_is_infinite_from_the_rate_on():
    t = jnp.array([-3.0, 0.0, 1.9, 2.0, 5.0])
    value, slope = jax.vmap(jax.value_and_grad(background.exponential_log_mgf, 1), in_axes=(None, 0))(2.0, t)
    np.testing.assert_allclose(value, [-np.log(2.5), 0, -np.log(0.05), np.inf, np.inf], rtol=1e-5)
    np.testing.assert_allclose(slope[:3], 1 / (2 - t[:3]), rtol=1e-5)
    assert np.all(np.isfinite(slope))


@pytest.mark.statement("background.mgf")
def test_empirical_log_mgf_does_not_overflow(x64):
    samples = np.random.default_rng(0).normal(size=(20, 2))
    found = _empirical(samples, np.array([0.3, -0.4]))
    assert float(found) == pytest.approx(np.log(np.mean(np.exp(samples @ [0.3, -0.4]))), rel=1e-13)
    huge = _empirical(1e6 * samples, np.array([1.0, 0.0]))
    assert float(huge) == pytest.approx(1e6 * samples[:, 0].max() - np.log(20), rel=1e-12)


@pytest.mark.statement("background.mgf_sum")
def test_log_mgf_of_sum_adds(x64):
    parts = [lambda t, m=m: _poisson(m, t) for m in (0.5, 1.5, 2.0)]
    found = background.log_mgf_of_sum(*parts)(jnp.array(0.4))
    assert float(found) == pytest.approx(float(_poisson(4.0, 0.4)), rel=1e-14)
    with pytest.raises(ValueError, match="`log_mgfs`"):
        background.log_mgf_of_sum()


@pytest.mark.statement("background.mgf_sum")
def test_a_sum_has_the_chernoff_bound_of_its_generating_function(x64):
    """Two binomial laws with one p make a third: functions of functions compose."""
    five = [lambda t: _coins(5, 0.2, t)] * 2
    of_sum = background.chernoff_bound(background.log_mgf_of_sum(*five), jnp.array(5.0))
    of_law = background.chernoff_bound(lambda t: _coins(10, 0.2, t), jnp.array(5.0))
    assert float(of_sum) == pytest.approx(float(of_law), rel=1e-12)


@pytest.mark.statement("background.moment_representation")
@pytest.mark.parametrize("order", [0, 1, 2, 3, 6])
def test_moments_of_an_exponential_law_are_factorials(order, x64):
    def mgf(t):
        return jnp.exp(background.exponential_log_mgf(jnp.array(0.5), t[0]))

    found = background.moment_from_mgf(mgf, (order,))
    assert float(found) == pytest.approx(special.factorial(order) * 2.0**order, rel=1e-12)


@pytest.mark.statement("background.moment_representation", "background.mgf")
def test_mixed_moments_of_an_empirical_law_are_averages(x64):
    samples = np.random.default_rng(1).normal(size=(7, 3))

    def mgf(t):
        return jnp.exp(background.empirical_log_mgf(jnp.asarray(samples), t))

    found = jax.jit(lambda: background.moment_from_mgf(mgf, (2, 0, 1)))()
    assert float(found) == pytest.approx(np.mean(samples[:, 0] ** 2 * samples[:, 2]), rel=1e-12)


@pytest.mark.statement("background.moment_representation")
@pytest.mark.parametrize("orders", [(), (1, -1)])
def test_moment_from_mgf_refuses_orders_that_are_none(orders):
    with pytest.raises(ValueError, match="`multi_index`"):
        background.moment_from_mgf(jnp.sum, orders)


@pytest.mark.statement("background.mgf")
@pytest.mark.parametrize(
    ("function", "args", "argument"),
    [
        (background.exponential_log_mgf, (0.0, 0.1), "rate"),
        (background.bernoulli_log_mgf, (1.1, 0.1), "p"),
        (background.binomial_log_mgf, (3, -0.1, 0.1), "p"),
        (background.poisson_log_mgf, (-1.0, 0.1), "rate"),
    ],
)
def test_values_outside_the_domain(function, args, argument):
    args = tuple(map(jnp.asarray, args))
    assert np.isnan(jax.jit(function)(*args))
    with pytest.raises(ValueError, match=f"`{argument}`"):
        debug.checked(function)(*args)


@pytest.mark.statement("background.mgf")
def test_empirical_log_mgf_refuses_no_samples():
    with pytest.raises(ValueError, match="`samples`"):
        background.empirical_log_mgf(jnp.ones((0, 2)), jnp.ones(2))
