"""Dual activations against quadrature, against each other, and in single precision where it is hardest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dltheory import nngp
from tests.nngp.oracles import mean_product, mean_square

pytestmark = pytest.mark.usefixtures("optimized")  # rounding is that of a user's program
ARCCOS = pytest.mark.statement("nngp.arccos_recursion")
RECURSION = pytest.mark.statement("nngp.kernel_recursion")


def _density(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def _logistic(x):
    return special.expit(x)


# name -> dual, phi, phi', kinks
DUALS = {
    "relu": (nngp.rectifier_dual, lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, (0,)),
    "slopes": (
        lambda: nngp.rectifier_dual(0.3, 0.8),
        lambda x: np.where(x > 0, 0.8 * x, 0.3 * x),
        lambda x: np.where(x > 0, 0.8, 0.3),
        (0,),
    ),
    "abs": (lambda: nngp.rectifier_dual(-1.0), np.abs, np.sign, (0,)),
    "sign": (nngp.sign_dual, np.sign, None, (0,)),
    "step": (lambda: nngp.rectified_monomial_dual(0), lambda x: (x > 0) * 1.0, None, (0,)),
    "squared relu": (
        lambda: nngp.rectified_monomial_dual(2),
        lambda x: np.maximum(x, 0) ** 2,
        lambda x: 2 * np.maximum(x, 0),
        (0,),
    ),
    "fourth power of relu": (
        lambda: nngp.rectified_monomial_dual(4),
        lambda x: np.maximum(x, 0) ** 4,
        lambda x: 4 * np.maximum(x, 0) ** 3,
        (0,),
    ),
    "erf": (
        lambda: nngp.erf_dual(0.7, 1.3, 0.2),
        lambda x: 0.7 * special.erf(1.3 * x) + 0.2,
        lambda x: 0.7 * 1.3 * 2 / np.sqrt(np.pi) * np.exp(-((1.3 * x) ** 2)),
        (),
    ),
    "gelu": (nngp.gelu_dual, lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * _density(x), ()),
    "sine": (
        lambda: nngp.sine_dual(1.1, 0.9, 0.4),
        lambda x: 1.1 * np.sin(0.9 * x + 0.4),
        lambda x: 0.99 * np.cos(0.9 * x + 0.4),
        (),
    ),
    "rbf": (
        lambda: nngp.rbf_dual(0.6),
        lambda x: np.sqrt(2) * np.sin(np.sqrt(1.2) * x + np.pi / 4),
        lambda x: np.sqrt(2.4) * np.cos(np.sqrt(1.2) * x + np.pi / 4),
        (),
    ),
    "exp": (
        lambda: nngp.exponential_dual(0.8, 0.5),
        lambda x: 0.8 * np.exp(0.5 * x),
        lambda x: 0.4 * np.exp(0.5 * x),
        (),
    ),
    "gaussian": (
        lambda: nngp.gaussian_dual(0.8, -0.5),
        lambda x: 0.8 * np.exp(-(x**2) / 2),
        lambda x: -0.8 * x * np.exp(-(x**2) / 2),
        (),
    ),
    "gabor": (
        nngp.gabor_dual,
        lambda x: np.exp(-(x**2)) * np.sin(x),
        lambda x: np.exp(-(x**2)) * (np.cos(x) - 2 * x * np.sin(x)),
        (),
    ),
    "polynomial": (
        lambda: nngp.polynomial_dual([0.1, -0.2, 0.3, 0.05]),
        lambda x: 0.1 - 0.2 * x + 0.3 * x**2 + 0.05 * x**3,
        lambda x: -0.2 + 0.6 * x + 0.15 * x**2,
        (),
    ),
    "silu": (
        lambda: nngp.series_dual(jax.nn.silu),
        lambda x: x * _logistic(x),
        lambda x: _logistic(x) * (1 + x * _logistic(-x)),
        (),
    ),
    "hard_tanh": (
        lambda: nngp.series_dual(jax.nn.hard_tanh, kinks=(-1.0, 1.0)),
        lambda x: np.clip(x, -1, 1),
        lambda x: (np.abs(x) < 1) * 1.0,
        (-1, 1),
    ),
    "elu": (
        lambda: nngp.series_dual(jax.nn.elu, kinks=(0.0,)),
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0))),
        (0,),
    ),
}
# What a truncated series leaves, where the activation has one.
SERIES_TOLERANCE = {"silu": 1e-9, "hard_tanh": 1e-5, "elu": 2e-5}
POINTS = np.array(
    [[1.0, 1.0, 0.5], [0.6, 2.1, -0.7], [0.6, 0.7, 0.97], [2.0, 1.5, -0.95], [0.02, 0.01, 0.6], [1.2, 0.7, -0.1]]
)


NEAR = np.array(
    [[1.0, 1.0, s * (1 - g)] for g in (0, 1e-12, 1e-8, 1e-5, 1e-3, 1e-2) for s in (1, -1)]
    + [[1.0, 1 + d, 1 - g] for d in (1e-6, 1e-4, 1e-2, 0.2) for g in (0, 1e-8, 1e-3)]
)
EQUAL = np.array([[q, q, 1.0] for q in (1e-6, 0.3, 1.0, 50.0)])
_ALL = {"points": POINTS, "near": NEAR, "equal": EQUAL}


def _pairs(points, dtype):
    q1, q2, rho = np.asarray(points, np.float64).T
    gap = 1 - np.abs(rho)
    return nngp.PairCovariance(*(jnp.asarray(x, dtype) for x in (q1, q2, rho * np.sqrt(q1 * q2), gap * (2 - gap))))


@functools.cache
def _both(name, dtype):
    """The dual of a name at all points at once: one compilation for all tests."""
    dual = DUALS[name][0]()
    points = np.concatenate(list(_ALL.values())).astype(np.float32)  # the same numbers in both precisions
    pairs = _pairs(np.concatenate([POINTS, points[len(POINTS) :]]), dtype)
    result = jax.jit(lambda pairs: (dual.kernel(pairs), dual.derivative(pairs)))(pairs)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), result)


def _evaluate(name, which, dtype):
    """Second moments of the features and the derivative dual, at one set of points."""
    start = 0
    for label, points in _ALL.items():
        if label == which:
            break
        start += len(points)
    return jax.tree.map(lambda x: x[start : start + len(_ALL[which])], _both(name, dtype))


ALIKE = {"slopes", "abs", "step", "fourth power of relu", "rbf", "hard_tanh", "elu"}  # others go through the same code


@ARCCOS
@RECURSION
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in DUALS]
)
def test_dual_equals_quadrature(name, x64):
    _, phi, slope, kinks = DUALS[name]
    kernel, derivative = _evaluate(name, "points", "float64")
    tolerance = SERIES_TOLERANCE.get(name, 1e-11)
    squares = np.array([[mean_square(phi, q, kinks) for q in point[:2]] for point in POINTS])
    products = np.array([mean_product(phi, q1, q2, rho, kinks) for q1, q2, rho in POINTS])
    size = np.sqrt(np.prod(squares, axis=1))
    np.testing.assert_allclose(kernel.variance1, squares[:, 0], rtol=1e-11)
    np.testing.assert_allclose(kernel.variance2, squares[:, 1], rtol=1e-11)
    np.testing.assert_allclose(kernel.covariance / size, products / size, rtol=0, atol=tolerance)
    np.testing.assert_allclose(kernel.residual, 1 - (products / size) ** 2, rtol=0, atol=10 * tolerance)
    if slope is not None:
        expected = np.array([mean_product(slope, q1, q2, rho, kinks) for q1, q2, rho in POINTS])
        np.testing.assert_allclose(derivative, expected, rtol=0, atol=30 * tolerance)
    else:
        np.testing.assert_array_equal(derivative, 0)


@ARCCOS
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in DUALS]
)
def test_single_precision_near_equal_and_opposite_inputs(name, x64):
    double, double_slope = _evaluate(name, "near", "float64")
    single, single_slope = _evaluate(name, "near", "float32")
    size = np.sqrt(double.variance1 * double.variance2)
    np.testing.assert_allclose(single.covariance / size, double.covariance / size, rtol=0, atol=1e-6)
    largest = max(1.0, np.abs(double_slope).max())
    np.testing.assert_allclose(single_slope / largest, double_slope / largest, rtol=0, atol=3e-6)
    # The sine of the angle between the features, on which the next layer's slope depends.
    np.testing.assert_allclose(np.sqrt(single.residual), np.sqrt(double.residual), rtol=0, atol=3e-5)


@ARCCOS
@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "squared relu", "silu", "polynomial"])
def test_equal_inputs_stay_equal(name, x64):
    for dtype, tolerance in (("float32", 2e-6), ("float64", 1e-12)):
        kernel, _ = _evaluate(name, "equal", dtype)
        np.testing.assert_allclose(kernel.covariance, kernel.variance1, rtol=tolerance)
        assert np.all(kernel.residual < tolerance**2)


@ARCCOS
def test_derivative_dual_is_the_derivative_of_the_dual(x64):
    q1, q2, rho = POINTS.T
    for name in ("relu", "erf", "gelu", "polynomial"):
        dual = DUALS[name][0]()

        def product(c, dual=dual):
            return jnp.sum(dual.kernel(nngp.pair_covariance(jnp.asarray(q1), jnp.asarray(q2), c)).covariance)

        def slopes(c, dual=dual, product=product):
            expected = dual.derivative(nngp.pair_covariance(jnp.asarray(q1), jnp.asarray(q2), c))
            return jax.grad(product)(c), expected

        found, expected = jax.jit(slopes)(jnp.asarray(rho * np.sqrt(q1 * q2)))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@ARCCOS
def test_monomials_follow_isserlis(x64):
    q1, q2, c = 0.7, 1.9, -0.6
    p = q1 * q2
    expected = {2: 2 * c**2 + p, 3: 6 * c**3 + 9 * c * p, 4: 24 * c**4 + 72 * p * c**2 + 9 * p**2}

    @jax.jit
    def moments(*pair):
        pairs = nngp.pair_covariance(*pair)
        return [nngp.polynomial_dual([0.0] * n + [1.0]).kernel(pairs).covariance for n in expected]

    np.testing.assert_allclose(moments(q1, q2, c), list(expected.values()), rtol=1e-13)


@ARCCOS
def test_normalized_exponential_keeps_variances(x64):
    moments = np.array([1.0, 2.0]), np.array([3.0, 2.0]), np.array([0.5, 2.0])
    kernel = jax.jit(lambda *m: nngp.normalized_exponential_dual(0.8).kernel(nngp.pair_covariance(*m)))(*moments)
    np.testing.assert_allclose(kernel.variance2, [3.0, 2.0])
    np.testing.assert_allclose(kernel.covariance, np.sqrt([3.0, 4.0]) * np.exp(0.8 * (np.array([0.5 / 3**0.5, 1]) - 1)))


@ARCCOS
def test_closed_kernels_at_their_edges():
    one, zero = jnp.ones(4), jnp.zeros(4)
    k12 = jnp.array([1.0, -1.0, 1.5, 0.0])  # the third beyond what variances allow
    arccos, erf = jax.jit(nngp.arccos_kernel), jax.jit(nngp.erf_kernel)
    np.testing.assert_allclose(arccos(one, k12, one), [0.5, 0.0, 0.5, 0.5 / np.pi], atol=1e-7)
    np.testing.assert_array_equal(arccos(zero, zero, one), 0)
    np.testing.assert_allclose(erf(one, k12, one)[0], 2 / np.pi * np.arcsin(2 / 3), rtol=1e-6)
    with pytest.raises(ValueError, match="`degree`"):
        nngp.arccos_kernel(one, one, one, degree=-1)


@RECURSION
@pytest.mark.slow
@pytest.mark.parametrize("kinked", [True, False])
def test_series_meets_the_closed_form(kinked, x64):
    gaps = np.array([0.0, 1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.5, 1.0, 1.5, 1.99])
    points = np.stack([np.full(10, 1.3), np.full(10, 0.8), 1 - gaps], axis=1)
    pairs = _pairs(points, jnp.float64)
    if kinked:
        series, closed = nngp.series_dual(jax.nn.relu, kinks=(0.0,)), nngp.rectifier_dual()
    else:
        series, closed = nngp.series_dual(lambda x: x * jax.scipy.special.erf(x)), None

    @jax.jit
    def duals(pairs):
        exact = closed or nngp.gelu_dual()
        scaled = pairs if closed else nngp.affine_covariance(pairs, 2**0.5, 0.0)
        return [(dual.kernel(at), dual.derivative(at)) for dual, at in ((series, pairs), (exact, scaled))]

    found, expected = duals(pairs)
    if closed is None:  # E u erf(u) v erf(v), by exact GELU: x erf(x) = 2 GELU(x sqrt 2) / sqrt 2 - x
        # x erf(x) is even and x is odd: the square of the sum has no mixed term.
        product = 2 * np.asarray(expected[0].covariance) - np.asarray(pairs.covariance)
        np.testing.assert_allclose(found[0].covariance, product, rtol=0, atol=1e-9)
    else:
        np.testing.assert_allclose(found[0].covariance, expected[0].covariance, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found[0].residual, expected[0].residual, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6)


@RECURSION
@pytest.mark.parametrize(
    "dual",
    [pytest.param(nngp.series_dual(jax.nn.selu, kinks=(0.0,)), marks=pytest.mark.slow), nngp.series_dual(jnp.tanh)],
    ids=["selu", "tanh"],
)
def test_residual_of_unequal_variances(dual, x64):
    """Coefficients of unequal variances may differ in sign, and the even part of a negative dual be negative."""
    rho = np.array([-0.99, -0.3, 0.3, 0.99])
    moments = np.full(4, 0.3), np.full(4, 4.0), rho * np.sqrt(1.2)
    moved = jax.jit(lambda *moments: dual.kernel(nngp.pair_covariance(*moments)))(*moments)
    correlation = np.asarray(moved.covariance) / np.sqrt(np.asarray(moved.variance1) * np.asarray(moved.variance2))
    np.testing.assert_allclose(moved.residual, 1 - correlation**2, rtol=1e-9)


@RECURSION
def test_series_error_bounds_the_error(x64):
    variances = jnp.array([0.5, 4.0, 25.0])

    @jax.jit
    def series(q):
        pairs = nngp.PairCovariance(q, q, 0.9 * q, jnp.full(3, 0.19))
        return nngp.series_error(jnp.tanh, q, num_terms=16), nngp.series_dual(jnp.tanh, num_terms=16).kernel(pairs)

    error, found = series(variances)
    assert np.all(np.diff(error.kernel) > 0)
    exact = [mean_product(np.tanh, float(q), float(q), 0.9) for q in variances]
    assert np.all(np.abs(np.asarray(found.covariance) - exact) <= np.asarray(error.kernel) * found.variance1)
    cubic = jax.jit(lambda q: nngp.series_error(lambda x: x**3, q, num_terms=4))(2.0)
    assert float(cubic.kernel) < 1e-12


@RECURSION
def test_hermite_coefficients_of_a_ramp(x64):
    """Those of max(z - t, 0) are phi(t) h_(k-2)(t) / sqrt(k (k - 1))."""
    t, k = 0.7, np.arange(2, 12)
    ramp = jax.jit(lambda q: nngp.hermite_coefficients(lambda x: jnp.maximum(x - t, 0), q, num_terms=12, kinks=(t,)))
    found = ramp(1.0)
    lower = np.array([special.eval_hermitenorm(n, t) / np.sqrt(special.factorial(n)) for n in k - 2])
    np.testing.assert_allclose(found[2:], _density(t) * lower / np.sqrt(k * (k - 1)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1], special.ndtr(-t), rtol=1e-12)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"`activation`.*'softplux'"):
        nngp.dual_activation("softplux")
    with pytest.raises(ValueError, match="`num_terms`"):
        nngp.series_dual(jnp.tanh, num_terms=7)
    with pytest.raises(ValueError, match="`coefficients`"):
        nngp.polynomial_dual([])


def test_the_approximate_gelu_is_not_taken_for_the_exact_one():
    @jax.jit
    def kernels(*moments):
        pairs = nngp.pair_covariance(*moments)
        return [nngp.dual_activation(f).kernel(pairs).covariance for f in ("gelu", jax.nn.gelu)]

    exact, approximate = kernels(4.0, 4.0, 1.0)
    assert 1e-6 < abs(float(exact - approximate)) < 1e-2


@pytest.mark.parametrize(
    "dual",
    [nngp.gaussian_dual(), pytest.param(nngp.quadrature_dual(jax.nn.sigmoid), marks=pytest.mark.slow)],
    ids=["gaussian", "sigmoid"],
)
def test_a_small_variance_beside_none(dual):
    """The pair loses little, but not nothing: E phi(0) phi(v) is phi(0) times a mean."""
    q = jnp.array([0.01, 1e-4])
    found = dual.kernel(nngp.pair_covariance(jnp.zeros(2), q, jnp.zeros(2))).covariance
    exact = dual.kernel(nngp.PairCovariance(q, q, jnp.zeros(2), jnp.ones(2))).covariance**0.5  # (E phi)^2
    origin = dual.kernel(nngp.pair_covariance(*jnp.zeros((3, 2)))).covariance**0.5
    np.testing.assert_allclose(found, origin * exact, rtol=2e-6)
