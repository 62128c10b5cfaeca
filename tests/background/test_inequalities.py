"""The inequalities of Markov, Chernoff, Hoeffding, Hölder and Jensen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from dltheory import background, debug

_hoeffding = jax.jit(background.hoeffding_bound)
_norm = jax.jit(background.p_norm)
_extremal = jax.jit(background.holder_extremal)
_gap = jax.jit(background.holder_gap)
_jensen = jax.jit(background.jensen_gap, static_argnums=0)


@jax.jit
def _binomial_chernoff(a, n, p):
    return background.chernoff_bound(lambda t: background.binomial_log_mgf(n, p, t), a)


@jax.jit
def _poisson_chernoff(a, rate):
    return background.chernoff_bound(lambda t: background.poisson_log_mgf(rate, t), a)


@pytest.mark.statement("background.markov")
def test_markov_bound_is_a_probability():
    bounds = jax.vmap(background.markov_bound)(jnp.array([1.0, 3.0, 0.0]), jnp.array([4.0, 2.0, 1.0]))
    np.testing.assert_allclose(bounds, [0.25, 1.0, 0.0])


@pytest.mark.statement("background.markov")
@pytest.mark.parametrize("a", [0.0, 2.0, 3.0, 11.0, 12.0, 13.0])
def test_chernoff_bound_equals_the_closed_form_for_counts(a, x64):
    n, p = 12, 0.25  # exp(-n kl(a/n, p)) for a above the mean
    found = _binomial_chernoff(a, n, p)
    expected = np.exp(-n * stats.entropy([a / n, 1 - a / n], [p, 1 - p])) if n * p <= a <= n else float(a <= n * p)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert float(found) >= stats.binom.sf(a - 1, n, p) - 1e-15


@pytest.mark.statement("background.markov")
def test_chernoff_bound_where_the_generating_function_is_infinite(x64):
    def bound(a, rate):
        return background.chernoff_bound(lambda t: background.exponential_log_mgf(rate, t), a)

    value_and_slopes = jax.jit(jax.value_and_grad(bound, argnums=(0, 1)))
    value, (in_a, in_rate) = value_and_slopes(3.0, 2.0)
    assert float(value) == pytest.approx(6 * np.exp(-5), rel=1e-12)  # rate a e^(1 - rate a)
    assert float(in_a) == pytest.approx(2 * (1 - 6) * np.exp(-5), rel=1e-6)
    assert float(in_rate) == pytest.approx(3 * (1 - 6) * np.exp(-5), rel=1e-6)
    assert float(value_and_slopes(0.4, 2.0)[0]) == 1.0  # below the mean


@pytest.mark.statement("background.markov")
def test_chernoff_bound_finds_minima_of_any_size(x64):
    scales = np.array([1e-6, 1.0, 1e6])
    bounds = jax.jit(jax.vmap(lambda s: background.chernoff_bound(lambda t: (s * t) ** 2 / 2, 2 * s)))(scales)
    np.testing.assert_allclose(bounds, np.full(3, np.exp(-2)), rtol=1e-9)


@pytest.mark.statement("background.hoeffding")
def test_hoeffding_bound_equals_its_formula(x64):
    widths, t = np.array([1.0, 0.5, 2.0]), 0.3
    expected = np.exp(-2 * 9 * t**2 / np.sum(widths**2))
    assert float(_hoeffding(widths, t)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.statement("background.hoeffding")
def test_hoeffding_bound_where_it_says_nothing_or_everything():
    widths, t = jnp.outer(jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.ones(3)), jnp.array([0.0, -1.0, 0.1, 0.0])
    bound, slope = jax.jit(jax.vmap(jax.value_and_grad(background.hoeffding_bound, argnums=1)))(widths, t)
    np.testing.assert_array_equal(bound, [1.0, 1.0, 0.0, 1.0])
    assert np.all(np.isfinite(slope))


@pytest.mark.statement("background.hoeffding")
@pytest.mark.parametrize("probability", [0.3, 1e-2, 1e-8])
def test_hoeffding_sample_size_is_the_least_that_suffices(probability, x64):
    n = int(background.hoeffding_sample_size(jnp.array(0.05), jnp.array(probability), jnp.array(2.0)))
    bounds = [float(_hoeffding(np.full(m, 2.0), 0.05)) for m in (n, n - 1)]
    assert bounds[0] <= probability < bounds[1]


@pytest.mark.statement("background.hoeffding")
def test_hoeffding_sample_size_of_what_is_certain():
    size = background.hoeffding_sample_size
    assert float(size(jnp.array(0.1), jnp.array(1.0), jnp.array(1.0))) == 0
    assert float(size(jnp.array(0.1), jnp.array(0.1), jnp.array(0.0))) == 0


EXPONENTS = [1.0, 1.3, 2.0, 7.0, np.inf]


@pytest.mark.statement("background.holder")
@pytest.mark.parametrize("p", EXPONENTS)
def test_p_norm_equals_numpy_without_overflow(p, x64):
    v = np.array([3.0, -4.0, 0.0, 1e-3])
    for scale in (1.0, 1e200, 1e-200):
        norm = float(_norm(scale * v, p))
        assert norm == pytest.approx(scale * np.linalg.norm(v, p), rel=1e-13)


@pytest.mark.statement("background.holder")
@pytest.mark.parametrize("p", EXPONENTS)
def test_p_norm_has_a_subgradient_at_zero(p):
    gradient = jax.jit(jax.vmap(jax.grad(background.p_norm), in_axes=(0, None)))
    found = gradient(jnp.array([[0.0, 0.0], [0.0, 2.0]]), p)
    np.testing.assert_allclose(found, [[0.0, 0.0], [0.0, 1.0]], atol=1e-6)


@pytest.mark.statement("background.holder")
@pytest.mark.parametrize("p", EXPONENTS)
def test_holder_extremal_attains_the_norm(p, x64):
    v = np.array([0.5, -2.0, 0.0, 2.0, 1.0])
    u = np.asarray(_extremal(v, p))
    dual = np.inf if p == 1 else 1 / (1 - 1 / p)
    assert np.linalg.norm(u, dual) == pytest.approx(1.0, rel=1e-14)
    assert float(u @ v) == pytest.approx(np.linalg.norm(v, p), rel=1e-14)
    assert float(_gap(u, v, p)) == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_array_equal(_extremal(0 * v, p), 0 * v)


@pytest.mark.statement("background.holder")
def test_dual_exponent_is_an_involution():
    p = jnp.array(EXPONENTS)
    np.testing.assert_allclose(background.dual_exponent(background.dual_exponent(p)), p, rtol=1e-6)
    np.testing.assert_allclose(1 / p + 1 / background.dual_exponent(p), np.ones(5), rtol=1e-6)


@pytest.mark.statement("background.holder")
def test_holder_gap_is_the_worst_case_over_the_unit_ball(x64):
    """The gap of u is what maximising <u, v> over the p-ball of v's radius could still gain."""
    u, v = np.array([1.0, 2.0]), np.array([0.3, 0.1])
    angles = np.linspace(0, np.pi / 2, 2001)
    ball = np.stack([np.cos(angles), np.sin(angles)])
    best = np.max(u @ (ball / np.linalg.norm(ball, 3, axis=0))) * np.linalg.norm(v, 3)
    gap = float(_gap(u, v, 3.0))
    assert gap == pytest.approx(best - np.abs(u * v).sum(), rel=1e-6)


@pytest.mark.statement("background.jensen")
def test_jensen_gap_of_the_square_is_the_variance(x64):
    x, w = np.array([1.0, 4.0, -2.0]), np.array([0.2, 0.5, 0.3])
    assert float(_jensen(jnp.square, x, w)) == pytest.approx(w @ x**2 - (w @ x) ** 2, rel=1e-14)
    both = _jensen(lambda x: jnp.stack([x**2, 2 * x + 1]), x, w)
    np.testing.assert_allclose(both, np.array([w @ x**2 - (w @ x) ** 2, 0.0]), atol=1e-14)


@pytest.mark.statement("background.jensen")
def test_jensen_gap_of_vectors(x64):
    x, w = np.random.default_rng(0).normal(size=(5, 3)), np.full(5, 0.2)
    expected = np.mean(np.linalg.norm(x, axis=1)) - np.linalg.norm(x.mean(0))
    assert float(_jensen(jnp.linalg.norm, x, w)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.statement("background.markov", "background.hoeffding", "background.holder", "background.jensen")
@pytest.mark.parametrize(
    ("function", "args", "argument", "result"),
    [
        (background.markov_bound, (-1.0, 1.0), "mean", np.nan),
        (background.markov_bound, (1.0, 0.0), "a", np.nan),
        (background.hoeffding_sample_size, (0.0, 0.1, 1.0), "t", np.nan),
        (background.hoeffding_sample_size, (0.1, 0.0, 1.0), "probability", np.nan),
        (background.hoeffding_sample_size, (0.1, 1.1, 1.0), "probability", np.nan),
        (background.hoeffding_sample_size, (0.1, 0.1, -1.0), "width", np.nan),
        (background.dual_exponent, (0.5,), "p", np.nan),
        (lambda p: background.p_norm(jnp.ones(2), p), (0.5,), "p", np.nan),
        (lambda p: background.holder_extremal(jnp.ones(2), p)[0], (0.5,), "p", np.nan),
        (lambda w: background.hoeffding_bound(jnp.stack([w, w]), jnp.array(0.1)), (-1.0,), "widths", None),
        (lambda w: background.jensen_gap(jnp.exp, jnp.zeros(1), w[None]), (0.9,), "weights", None),
    ],
)
def test_values_outside_the_domain(function, args, argument, result):
    args = tuple(map(jnp.asarray, args))
    if result is not None:
        np.testing.assert_array_equal(jax.jit(function)(*args), result)
    with pytest.raises(ValueError, match=f"`{argument}`"):
        debug.checked(function)(*args)


@pytest.mark.statement("background.markov")
def test_chernoff_bound_refuses_no_steps():
    with pytest.raises(ValueError, match="`num_steps`"):
        background.chernoff_bound(jnp.square, jnp.array(1.0), num_steps=0)


@pytest.mark.statement("background.markov")
def test_chernoff_bound_is_the_infimum_that_scipy_finds(x64):
    a, rate = 4.0, 2.0
    best = float(np.asarray(optimize.fminbound(lambda t: rate * np.expm1(t) - t * a, 0, 5, xtol=1e-9)))
    expected = np.exp(rate * np.expm1(best) - best * a)
    assert float(_poisson_chernoff(a, rate)) == pytest.approx(expected, rel=1e-12)
