"""Duals by quadrature at variances of any size, against brute force in NumPy, limits, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dltheory import nngp
from tests.nngp.oracles import mean_product_at_any_variance

pytestmark = [pytest.mark.statement("nngp.kernel_recursion"), pytest.mark.usefixtures("unoptimized")]


def _sech2(x):
    return 1 / np.cosh(np.clip(x, -300, 300)) ** 2


# name -> phi in JAX, in NumPy, its slope, its kinks
FUNCTIONS = {
    "tanh": (jnp.tanh, np.tanh, _sech2, ()),
    "softplus": (jax.nn.softplus, lambda x: np.logaddexp(0, x), special.expit, ()),
    "softsign": (jax.nn.soft_sign, lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, (0.0,)),
    "relu6": (jax.nn.relu6, lambda x: np.clip(x, 0, 6), lambda x: 1.0 * ((x > 0) & (x < 6)), (0.0, 6.0)),
    "elu": (
        jax.nn.elu,
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0))),
        (0.0,),
    ),
    "off centre": (
        lambda x: jnp.tanh(3 * x - 6) + 0.1 * x,
        lambda x: np.tanh(3 * x - 6) + 0.1 * x,
        lambda x: 3 * _sech2(3 * x - 6) + 0.1,
        (),
    ),
    "bump": (
        lambda x: x / jnp.cosh(jnp.clip(x, -80, 80)),
        lambda x: x / np.cosh(np.clip(x, -80, 80)),
        lambda x: (1 - x * np.tanh(x)) / np.cosh(np.clip(x, -80, 80)),
        (),
    ),
}
# Both variances, the correlation, and 1 - its square.
PAIRS = np.array(
    [
        (1e-12, 1e-12, 0.3, 0.91),
        (1e-12, 1e12, 0.6, 0.64),
        (1e-4, 30.0, -0.8, 0.36),
        (1.0, 1.0, 1.0, 0.0),
        (4.0, 1e3, 0.6, 0.64),
        (30.0, 30.0, np.sqrt(1 - 1e-6), 1e-6),
        (1e3, 1e3, -1.0, 0.0),
        (1e6, 30.0, np.sqrt(1 - 1e-4), 1e-4),
        (1e6, 1e6, -0.28, 0.9216),
        (1e12, 1e6, -np.sqrt(1 - 1e-12), 1e-12),
        (1e12, 1e12, np.sqrt(1 - 1e-12), 1e-12),
        (1e12, 1e12, 1.0, 0.0),
    ]
)


@functools.cache
def _exact(name):
    """Second moments of the function and of its slope, and what makes them correlations."""
    _, phi, slope, kinks = FUNCTIONS[name]

    def moments(f):
        own = {q: mean_product_at_any_variance(f, f, q, q, 1.0, 0.0, kinks) for q in np.unique(PAIRS[:, :2])}
        both = np.array([mean_product_at_any_variance(f, f, a, b, rho, rest, kinks) for a, b, rho, rest in PAIRS])
        return both, np.array([np.sqrt(own[a] * own[b]) for a, b, *_ in PAIRS])

    return moments(phi), moments(slope)


def _pairs(dtype, pairs=PAIRS):
    q1, q2, rho, residual = pairs.T
    return nngp.PairCovariance(*(jnp.asarray(x, dtype) for x in (q1, q2, rho * np.sqrt(q1) * np.sqrt(q2), residual)))


def _both(dual):
    return jax.jit(lambda pairs: (dual.kernel(pairs).covariance, dual.derivative(pairs)))


def _errors(name, found):
    return [np.max(np.abs(got - exact) / size) for got, (exact, size) in zip(found, _exact(name), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "elu"])  # which is below
def test_any_variance_in_double_precision(name, x64):
    found = _both(nngp.quadrature_dual(FUNCTIONS[name][0], kinks=FUNCTIONS[name][3]))(_pairs("float64"))
    assert found[0].dtype == found[1].dtype == "float64"
    assert max(_errors(name, found)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "relu6"])
def test_any_variance_where_there_is_no_double_precision(name):
    found = _both(nngp.quadrature_dual(FUNCTIONS[name][0], kinks=FUNCTIONS[name][3]))(_pairs("float32"))
    assert max(_errors(name, found)) < 1e-5


@pytest.mark.slow
def test_a_series_is_not_accurate_at_any_variance(x64):
    """What is tested above is not easy."""
    found = _both(nngp.series_dual(jnp.tanh))(_pairs("float64"))
    assert min(_errors("tanh", found)) > 1e-3


@pytest.mark.slow
def test_activations_by_name_are_accurate_at_any_variance(x64):
    assert max(_errors("elu", _both(nngp.dual_activation("elu"))(_pairs("float64")))) < 1e-9


def test_what_functions_become_at_large_variances(x64):
    """A sign and a rectifier; the slope of the sign is felt only in a layer of the width of the function.

    The layer has the share 1 / sqrt(q) of all arguments, and by about as much a sign is off; the others, relatively, by
    about 1 / q.
    """
    rho, q = np.array([-0.9, 0.0, 0.5, 0.99]), 1e16
    size = jnp.full(4, q)
    pairs = nngp.pair_covariance(size, size, size * rho)

    @jax.jit
    def duals(pairs):
        squash, ramp = nngp.quadrature_dual(jnp.tanh), nngp.quadrature_dual(jax.nn.softplus)
        return squash.kernel(pairs).covariance, squash.derivative(pairs), ramp.kernel(pairs).covariance

    sign, slope, relu = duals(pairs)
    np.testing.assert_allclose(sign, 2 / np.pi * np.arcsin(rho), atol=10 / q**0.5)
    np.testing.assert_allclose(slope, 2 / np.pi / q / np.sqrt(1 - rho**2), rtol=1e-9)  # (the integral of the slope)^2
    np.testing.assert_allclose(relu, nngp.rectifier_dual().kernel(pairs).covariance, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softplus", "relu6"])
def test_near_pairs_keep_their_angle(name, x64):
    """1 - rho^2 of the features, relatively."""
    phi, kinks = FUNCTIONS[name][1], FUNCTIONS[name][3]
    q1, q2 = np.array([0.5, 30.0, 1e6, 30.0, 1e6]), np.array([0.5, 30.0, 1e6, 30.3, 1e6 * 1.001])
    residual = np.array([1e-5, 1e-6, 1e-6, 1e-6, 1e-7])
    pairs = np.stack([q1, q2, np.sqrt(1 - residual), residual], axis=1)
    dual = jax.jit(nngp.quadrature_dual(FUNCTIONS[name][0], kinks=kinks).kernel)
    exact = []
    for a, b, rho, rest in pairs:
        own = [mean_product_at_any_variance(phi, phi, q, q, 1.0, 0.0, kinks) for q in (a, b)]
        both = mean_product_at_any_variance(phi, phi, a, b, rho, rest, kinks)
        exact.append(1 - both**2 / (own[0] * own[1]))
    np.testing.assert_allclose(dual(_pairs("float64", pairs)).residual, exact, rtol=2e-5)
    np.testing.assert_allclose(dual(_pairs("float32", pairs)).residual, exact, rtol=5e-3)


@pytest.mark.slow
def test_derivatives_are_those_of_differences(x64):
    """By all second moments, also of the derivative dual, whose kinks are jumps."""
    dual = nngp.quadrature_dual(FUNCTIONS["relu6"][0], kinks=FUNCTIONS["relu6"][3])
    points = np.array([(1.0, 2.0, 0.7), (40.0, 25.0, -20.0), (1e4, 2e4, 9e3)])
    moments = tuple(jnp.asarray(x) for x in points.T)

    def both(*moments):
        pairs = nngp.pair_covariance(*moments)
        return jnp.sum(dual.kernel(pairs).covariance), jnp.sum(dual.derivative(pairs))

    gradients = jax.jit(jax.jacrev(both, (0, 1, 2)))(*moments)
    evaluate = jax.jit(jax.vmap(jax.vmap(lambda *m: both(*(x[None] for x in m)))))
    for i in range(3):
        steps = 1e-4 * points[:, i] * np.array([[1.0], [-1.0]])
        shifted = [
            jnp.asarray(np.stack([x + (steps[k] if j == i else 0) for k in (0, 1)])) for j, x in enumerate(moments)
        ]
        for gradient, values in zip(gradients, evaluate(*shifted), strict=True):
            expected = (values[0] - values[1]) / (2 * steps[0])
            np.testing.assert_allclose(gradient[i], expected, rtol=2e-5, atol=1e-6 * np.max(np.abs(gradient[2])))


@pytest.mark.slow
def test_derivative_dual_is_the_derivative_also_of_equal_inputs(x64):
    dual = nngp.quadrature_dual(jnp.tanh)
    q, c = jnp.array([1e3, 1e8, 1e8]), jnp.array([5e2, 9.9e7, 1e8])

    @jax.jit
    def slopes(c):
        gradient = jax.grad(lambda c: jnp.sum(dual.kernel(nngp.pair_covariance(q, q, c)).covariance))(c)
        return gradient, dual.derivative(nngp.pair_covariance(q, q, c))

    np.testing.assert_allclose(*slopes(c), rtol=1e-9)


@pytest.mark.slow
def test_what_oscillates_or_grows_too_fast_is_not_a_number(x64):
    variances = jnp.array([0.01, 1e8])
    pairs = nngp.pair_covariance(variances, variances, variances / 2)
    for fn in (lambda x: jnp.sin(3 * x) + x, lambda x: jnp.sinh(x) * x):
        found = jax.jit(nngp.quadrature_dual(fn).derivative)(pairs)
        assert list(np.isnan(found)) == [False, True]


@pytest.mark.slow
def test_derivatives_at_variance_zero_are_finite(x64):
    """By all moments, where neither or only one of the two varies."""
    pairs = nngp.PairCovariance(*jnp.array([[0, 1e-12, 0, 1.0], [0, 0, 1e-12, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))
    dual = nngp.quadrature_dual(jnp.tanh)
    ones = nngp.PairCovariance(*jnp.ones((4, 4)))
    value, change = jax.jit(lambda pairs: jax.jvp(dual.kernel, (pairs,), (ones,)))(pairs)
    assert list(value.variance1[::2]) == [0.0, 0.0]
    assert all(np.all(np.isfinite(moments)) for moments in change)


def test_what_is_not_a_number_stays_so():
    pairs = nngp.pair_covariance(*jnp.array([[jnp.nan, 1e6], [1e6, 1e6], [1.0, 1.0]]))
    found = _both(nngp.quadrature_dual(jnp.tanh))(pairs)
    for moment in found:
        assert list(np.isnan(moment)) == [True, False]
