"""Entropy and the Kullback-Leibler divergence."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dltheory import background, debug

_kl = jax.jit(jax.vmap(background.kl_bernoulli))
_kl_gradient = jax.jit(jax.vmap(jax.grad(background.kl_bernoulli, argnums=(0, 1))))
_inverse = jax.jit(jax.vmap(background.kl_bernoulli_inverse))
_inverse_gradient = jax.jit(jax.vmap(jax.grad(background.kl_bernoulli_inverse, argnums=(0, 1))))

NEAR_AND_FAR = [0.0, 1e-12, 1e-5, 0.1, 0.3, 0.3 + 1e-13, 0.3 - 1e-9, 0.5, 0.9, 1 - 1e-6, 1.0]


def exact_kl(q, p):
    """The divergence of two coins to fifty digits."""
    with localcontext(prec=60):
        q, p = Decimal(q), Decimal(p)
        heads = q * (q / p).ln() if q else Decimal(0)
        tails = (1 - q) * ((1 - q) / (1 - p)).ln() if q != 1 else Decimal(0)
        return heads + tails


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_is_precise_to_rounding(x64):
    q, p = (grid.ravel() for grid in np.meshgrid(NEAR_AND_FAR, NEAR_AND_FAR))
    found = np.asarray(_kl(q, p))
    for a, b, value in zip(q.tolist(), p.tolist(), found.tolist(), strict=True):
        infinite = b in (0.0, 1.0) and a != b
        expected = np.inf if infinite else 0.0 if a == b else float(exact_kl(a, b))
        assert value == pytest.approx(expected, rel=3e-15, abs=0), (a, b)


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_has_exact_derivatives(x64):
    q, p = np.full(5, 0.3), np.array([0.05, 0.2999, 0.3, 0.30001, 0.8])
    in_q, in_p = _kl_gradient(q, p)
    np.testing.assert_allclose(in_q, special.logit(q) - special.logit(p), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(in_p, (p - q) / (p * (1 - p)), rtol=1e-13)
    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(background.kl_bernoulli, 1), 1)))(q, p)
    np.testing.assert_allclose(curvature, q / p**2 + (1 - q) / (1 - p) ** 2, rtol=1e-12)


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_has_finite_derivatives_at_the_ends():
    in_q, in_p = _kl_gradient(jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([0.25, 0.25, 1.0, 0.0]))
    np.testing.assert_allclose(in_p[:2], [1 / 0.75, -1 / 0.25], rtol=1e-6)
    assert np.all(np.isfinite([in_q, in_p]))
    np.testing.assert_array_equal(np.sign(in_q[:2]), [-1, 1])  # moving inwards lowers the divergence


BOUNDS = [1e-30, 1e-12, 1e-5, 0.01, 0.3, 2.0, 20.0]
OBSERVED = [0.0, 1e-12, 1e-5, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6]


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_inverse_brackets_the_exact_root(x64):
    q, bound = (grid.ravel() for grid in np.meshgrid(OBSERVED, BOUNDS))
    found = np.asarray(_inverse(q, bound))
    for a, c, p in zip(q.tolist(), bound.tolist(), found.tolist(), strict=True):
        below, above = p - 2e-15 * p, min(p + 2e-15 * p, 1.0)
        assert below <= a or exact_kl(a, below) <= c, (a, c)
        assert above == 1 or exact_kl(a, above) >= c, (a, c)


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_inverse_in_closed_form_and_at_the_ends(x64):
    bounds = np.array([0.0, 1e-9, 0.5, 30.0, 1000.0])
    np.testing.assert_allclose(_inverse(np.zeros(5), bounds), -np.expm1(-bounds), rtol=1e-15)
    np.testing.assert_array_equal(_inverse(np.ones(5), bounds), np.ones(5))
    np.testing.assert_array_equal(_inverse(np.array(OBSERVED), np.zeros(len(OBSERVED))), OBSERVED)


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_inverse_differentiates_implicitly(x64):
    q, c = np.array([0.1, 0.6]), np.array([0.05, 0.3])
    p = np.asarray(_inverse(q, c))
    in_q, in_bound = _inverse_gradient(q, c)
    slope = (p - q) / (p * (1 - p))
    np.testing.assert_allclose(in_bound, 1 / slope, rtol=1e-12)
    np.testing.assert_allclose(in_q, (special.logit(p) - special.logit(q)) / slope, rtol=1e-12)
    forward_over_reverse = jax.jacfwd(jax.grad(background.kl_bernoulli_inverse, 1), 1)
    second = jax.jit(jax.vmap(forward_over_reverse))(q, c)
    np.testing.assert_allclose(second, -(q / p**2 + (1 - q) / (1 - p) ** 2) / slope**3, rtol=1e-10)


@pytest.mark.statement("background.kl_divergence")
def test_kl_bernoulli_inverse_has_finite_derivatives():
    q, bound = jnp.array([0.0, 0.0, 0.3, 1.0, 0.5]), jnp.array([0.1, 0.0, 0.0, 0.1, 500.0])
    gradient = np.asarray(_inverse_gradient(q, bound))
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient >= 0)
    assert gradient[1, 0] == pytest.approx(np.exp(-0.1), rel=1e-6)  # at q = 0 the inverse is 1 - exp(-c)


@pytest.mark.statement("background.kl_divergence", "background.entropy")
def test_discrete_divergences_equal_scipy(x64):
    rng = np.random.default_rng(0)
    q, p = rng.dirichlet(np.ones(6), size=(2, 200))
    np.testing.assert_allclose(jax.vmap(background.kl_discrete)(q, p), stats.entropy(q, p, axis=1), rtol=1e-11)
    np.testing.assert_allclose(jax.vmap(background.entropy)(q), stats.entropy(q, axis=1), rtol=1e-13)
    cross = jax.vmap(background.cross_entropy)(q, p)
    np.testing.assert_allclose(cross, stats.entropy(q, axis=1) + stats.entropy(q, p, axis=1), rtol=1e-13)


@pytest.mark.statement("background.kl_divergence", "background.entropy")
def test_zeros_and_infinities():
    certain, other = jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])
    assert float(background.entropy(certain)) == 0
    assert float(background.kl_discrete(certain, other)) == pytest.approx(np.log(2))
    assert float(background.kl_discrete(other, certain)) == np.inf
    assert float(background.cross_entropy(certain, certain)) == 0
    assert float(background.cross_entropy(other, certain)) == np.inf
    for function in (background.kl_discrete, background.cross_entropy):
        for pair in ((certain, other), (other, certain), (certain, certain)):
            assert np.all(np.isfinite(jax.grad(function, argnums=(0, 1))(*pair)))
    assert np.all(np.isfinite(jax.grad(background.entropy)(certain)))


@pytest.mark.statement("background.kl_divergence", "background.entropy")
def test_labels_may_be_integers():
    label, law = jnp.array([0, 1, 0]), jnp.array([0.25, 0.5, 0.25])
    assert float(background.cross_entropy(label, law)) == pytest.approx(np.log(2))
    assert float(background.kl_discrete(label, law)) == pytest.approx(np.log(2))
    assert str(background.entropy(label)) == "0.0"


@pytest.mark.statement("background.entropy")
@pytest.mark.parametrize(("base", "unit"), [(2, np.log(2)), (np.e, 1.0), (10.0, np.log(10))])
def test_entropy_of_the_uniform_law_in_other_units(base, unit):
    assert float(background.entropy(jnp.full(7, 1 / 7), base)) == pytest.approx(np.log(7) / unit, rel=1e-6)


@pytest.mark.statement("background.entropy")
@pytest.mark.parametrize("base", [0.0, 1.0, -2.0])
def test_entropy_refuses_a_base_without_logarithm(base):
    with pytest.raises(ValueError, match="`base`"):
        background.entropy(jnp.ones(1), base)


@pytest.mark.statement("background.kl_divergence", "background.entropy")
@pytest.mark.parametrize(
    ("function", "args", "argument", "result"),
    [
        (background.entropy, ([0.5, 0.6],), "p", None),
        (background.entropy, ([-0.5, 1.5],), "p", np.nan),
        (background.cross_entropy, ([0.5, 0.5], [-0.5, 1.5]), "q", np.nan),
        (background.kl_discrete, ([-0.5, 1.5], [0.5, 0.5]), "q", np.nan),
        (background.kl_discrete, ([0.5, 0.5], [0.5, 0.6]), "p", None),
        (background.kl_bernoulli, (-0.1, 0.5), "q", np.nan),
        (background.kl_bernoulli, (0.5, 1.1), "p", np.nan),
        (background.kl_bernoulli_inverse, (1.1, 0.5), "q", np.nan),
        (background.kl_bernoulli_inverse, (0.5, -0.1), "bound", np.nan),
    ],
)
def test_values_outside_the_domain(function, args, argument, result):
    args = tuple(map(jnp.asarray, args))
    if result is not None:
        np.testing.assert_array_equal(jax.jit(function)(*args), result)
    with pytest.raises(ValueError, match=f"`{argument}`"):
        debug.checked(function)(*args)


@pytest.mark.statement("background.kl_divergence")
def test_kl_monte_carlo_estimates_with_an_honest_error():
    keys = jax.random.split(jax.random.key(0), 400)

    def estimate(key):
        x = jax.random.normal(key, (50, 2))
        return background.kl_monte_carlo(lambda x: -jnp.sum(x**2) / 2, lambda x: -jnp.sum((x - 1) ** 2) / 2, x)

    mean, error = map(np.asarray, jax.jit(jax.vmap(estimate))(keys))
    assert abs(np.mean(mean) - 1.0) < 5 * np.std(mean) / 20  # two coordinates, half a nat each
    assert np.mean(error) == pytest.approx(np.std(mean), rel=0.15)


@pytest.mark.statement("background.kl_divergence")
@pytest.mark.parametrize("samples", [jnp.ones(1), {"a": jnp.ones(3), "b": jnp.ones(4)}, {}])
def test_kl_monte_carlo_refuses_samples_that_do_not_stack(samples):
    with pytest.raises(ValueError, match="`samples`"):
        background.kl_monte_carlo(lambda x: jnp.zeros(()), lambda x: jnp.zeros(()), samples)
