"""Elementwise functions of Gaussian pairs against quadrature in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from dltheory import nngp
from dltheory.infinite_width._functions import elementwise
from dltheory.infinite_width._pairs import mean, second_moment
from dltheory.infinite_width._plane import plane_mean, plane_second_moment

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_RHO = np.array([-1.0, -0.6, 0.0, 0.5, 0.99, 1.0])


def _panels(cuts):
    edges = np.unique(np.clip([*np.linspace(-9, 9, 7), *cuts], -9, 9))
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    nodes, weights = (middle + half * _NODES).ravel(), (half * _WEIGHTS).ravel()
    return nodes, weights * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)


def _mean_product(f, g, q1, q2, rho, kinks1, kinks2):
    a, b, rest = np.sqrt(q1), np.sqrt(q2), np.sqrt(1 - rho**2)
    kinks1, kinks2 = np.asarray(kinks1) / max(a, 1e-6), np.asarray(kinks2) / max(b, 1e-6)
    if rest == 0:
        nodes, weights = _panels([*kinks1, *(rho * kinks2)])
        return weights @ (f(a * nodes) * g(b * rho * nodes))
    total = 0.0
    for node, weight in zip(*_panels(kinks1), strict=True):
        inner, inner_weights = _panels((kinks2 - rho * node) / rest)
        total += weight * f(np.float64(a * node)) * (inner_weights @ g(b * (rho * node + rest * inner)))
    return total


def _relu(x):
    return jnp.maximum(x, 0)


# JAX's function, NumPy's, its slope, its kinks
_STATIC = {
    "relu": (_relu, lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0), [0.0]),
    "tanh": (jnp.tanh, np.tanh, lambda x: np.cosh(x) ** -2.0, []),
    "sin": (jnp.sin, np.sin, np.cos, []),
    "ramp": (lambda x: _relu(x - 1), lambda x: np.maximum(x - 1, 0), lambda x: 1.0 * (x > 1), [1.0]),
    "clip": (lambda x: jnp.clip(x, -1, 1), lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (np.abs(x) < 1), [-1.0, 1.0]),
    "jump": (
        lambda x: jnp.where(x > 0.5, x + 1, 0.0),
        lambda x: np.where(x > 0.5, x + 1, 0.0),
        lambda x: 1.0 * (x > 0.5),
        [0.5],
    ),
}


@pytest.mark.parametrize(
    ("f", "g"), [("relu", "tanh"), pytest.param("ramp", "clip", marks=pytest.mark.slow), ("jump", "jump")]
)
def test_moments_are_those_of_quadrature(x64, f, g):
    one, two = elementwise(_STATIC[f][0]), elementwise(_STATIC[g][0])
    one = two if f == g else one
    both = jax.jit(lambda p: [second_moment(one, two, p, slope=slope) for slope in (False, True)])
    kinks = _STATIC[f][3], _STATIC[g][3]
    for a, b in ((1.0, 1.0), (0.3, 4.0)):  # by series, and by quadrature
        rho, ones = jnp.asarray(_RHO), jnp.ones(len(_RHO))
        for which, found in enumerate(both(nngp.pair_covariance(a * ones, b * ones, rho * (a * b) ** 0.5)), start=1):
            exact = [_mean_product(_STATIC[f][which], _STATIC[g][which], a, b, r, *kinks) for r in _RHO]
            np.testing.assert_allclose(found, exact, atol=3e-7, rtol=0)


@pytest.mark.slow
def test_moments_in_single_precision_and_at_variance_zero():
    f, g = elementwise(jnp.tanh), elementwise(lambda x: jnp.exp(-_relu(x)))
    q1, q2 = jnp.array([[0.0], [1.0], [4.0]]), jnp.array([[0.3, 0.0, 1.0]])
    pairs = nngp.pair_covariance(q1, q2, 0.7 * jnp.sqrt(q1 * q2))
    got = jax.jit(lambda p: second_moment(f, g, p))(pairs)
    for i, a in enumerate(q1[:, 0]):
        for j, b in enumerate(q2[0]):
            rho = 0.7 if a * b > 0 else 0.0
            exact = _mean_product(np.tanh, lambda x: np.exp(-np.maximum(x, 0)), float(a), float(b), rho, [], [0.0])
            assert got[i, j] == pytest.approx(exact, abs=2e-6)


@pytest.mark.slow
def test_functions_with_parameters(x64):
    def fn(u, m, r):
        return _relu((_relu(u) - m) * r)

    m1, r1, m2, r2 = 0.4, 1.7, 0.8, 1.2
    function = elementwise(fn, 2)
    ones = jnp.ones(len(_RHO))
    pairs = nngp.pair_covariance(ones, 2 * ones, jnp.asarray(_RHO) * 2**0.5)

    @jax.jit
    def moments(pairs, f_params, g_params):
        return (
            second_moment(function, function, pairs, f_params, g_params),
            second_moment(function, function, pairs, f_params, g_params, slope=True),
        )

    values, slopes = moments(pairs, (m1 * ones, r1 * ones), (m2 * ones, r2 * ones))
    f, g = (lambda u, m=m, r=r: r * np.maximum(u - m, 0) for m, r in ((m1, r1), (m2, r2)))
    df, dg = (lambda u, m=m, r=r: r * (u > m) for m, r in ((m1, r1), (m2, r2)))
    np.testing.assert_allclose(values, [_mean_product(f, g, 1, 2, r, [m1], [m2]) for r in _RHO], atol=1e-6)
    np.testing.assert_allclose(slopes, [_mean_product(df, dg, 1, 2, r, [m1], [m2]) for r in _RHO], atol=1e-6)


def test_variances_are_exact_beyond_the_series(x64):
    """Also where the ramp of a function with parameters is not its only singularity."""
    function = elementwise(lambda u, m: jnp.tanh(2 * _relu(u) - m), 1)
    one = jnp.ones(1)
    pairs = nngp.pair_covariance(one, one, one)
    value, slope = jax.jit(
        lambda p, m: [second_moment(function, function, p, (m,), (m,), slope) for slope in (False, True)]
    )(pairs, one)
    nodes, weights = _panels([0.0])
    assert value[0] == pytest.approx(weights @ np.tanh(2 * np.maximum(nodes, 0) - 1) ** 2, rel=1e-9)
    exact = weights @ (2 * (nodes > 0) / np.cosh(2 * nodes - 1) ** 2) ** 2
    assert slope[0] == pytest.approx(exact, rel=1e-9)


def test_means(x64):
    q = jnp.array([0.0, 0.3, 1.0, 4.0])
    clip = elementwise(lambda x: jnp.clip(x, -1.0, 0.5))
    nodes_for = [np.array([-1.0, 0.5]) / max(np.sqrt(v), 1e-6) for v in np.asarray(q)]
    exact = []
    for v, cuts in zip(np.asarray(q), nodes_for, strict=True):
        nodes, weights = _panels(cuts)
        exact.append(weights @ np.clip(np.sqrt(v) * nodes, -1.0, 0.5))
    value, grads = jax.jit(lambda q: (mean(clip, q), jax.grad(lambda q: mean(clip, q).sum())(q)))(q)
    np.testing.assert_allclose(value, exact, atol=1e-12)
    assert np.all(np.isfinite(grads))
    step = 1e-5
    difference = (mean(clip, q[1:] + step) - mean(clip, q[1:] - step)) / (2 * step)
    np.testing.assert_allclose(grads[1:], difference, atol=1e-8)
    shifted = elementwise(lambda u, m: _relu(u - m), 1)
    nodes, weights = _panels([0.3])
    assert mean(shifted, jnp.array(1.0), (jnp.array(0.3),)) == pytest.approx(
        weights @ np.maximum(nodes - 0.3, 0), abs=1e-10
    )


@pytest.mark.slow
def test_gradients_are_finite():
    relu, parametrised = elementwise(_relu), elementwise(lambda u, m: _relu(_relu(u) - m), 1)
    tanh = elementwise(jnp.tanh)
    variances = jnp.array([0.0, 0.0, 1.0, 1.0, 1.0])
    covariances = jnp.array([0.0, 0.0, 1.0, -1.0, 0.5])
    params = (jnp.full(5, 0.2),)

    @jax.jit
    @jax.grad
    def gradient(moments):
        pairs = nngp.pair_covariance(*moments)
        static = second_moment(relu, tanh, pairs).sum() + second_moment(relu, tanh, pairs, slope=True).sum()
        return static + second_moment(parametrised, parametrised, pairs, params, params).sum()

    assert all(np.isfinite(g).all() for g in gradient((variances, variances, covariances)))


@pytest.mark.parametrize(
    ("fn", "family"),
    [
        (lambda x: jnp.maximum(x, 0), "relu"),
        (lambda x: x * (x > 0), "relu"),
        (lambda x: jax.nn.relu(2 * x), "rectifier"),
        (lambda x: jnp.where(x > 0, x, 0.01 * x), "rectifier"),
        (jnp.abs, "abs"),
        (lambda x: x, "identity"),
        (jnp.sign, "levels"),
        (lambda x: jnp.where(x > 0, 1.0, 0.0), "levels"),
        (lambda x: 3 * jax.nn.relu(-x) ** 3, "rectified_power"),
        (lambda x: 1 + x - 0.5 * x**3, "polynomial"),
        (lambda x: 0 * x + 2, "polynomial"),
        (lambda x: 0.5 * x * (1 + jax.scipy.special.erf(x / 2**0.5)), "gelu"),
        (lambda x: 2 * jax.nn.gelu(3 * x, approximate=False), "gelu"),
        (lambda x: 2 * jax.scipy.special.erf(0.3 * x) - 0.7, "erf"),
        (lambda x: 3 * jnp.cos(2 * x + 0.3), "sin"),
        (lambda x: 2 * jnp.exp(-0.5 * x), "exp"),
        (lambda x: jnp.exp(-(x**2) / 2), "gaussian"),
    ],
)
def test_recognised_functions_have_their_moments(fn, family):
    function = elementwise(fn)
    assert function.name is not None
    assert function.name.split("(")[0] == family
    assert function.dual is not None
    pairs = nngp.pair_covariance(*jnp.array([0.5, 1.5, 0.4]))
    got = jnp.stack([function.dual.kernel(pairs).covariance, function.dual.derivative(pairs)])
    rho, rest = 0.4 / 0.75**0.5, (1 - 0.16 / 0.75) ** 0.5
    columns = []
    for node, weight in zip(*_panels([0.0]), strict=True):
        inner, inner_weights = _panels([-rho * node / rest])
        columns.append([np.full_like(inner, node), rho * node + rest * inner, weight * inner_weights])
    first, second, mass = np.concatenate(columns, axis=1)
    u, v = 0.5**0.5 * first, 1.5**0.5 * second
    values = jax.jit(lambda x: (fn(x), jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]))
    exact = [mass @ (np.asarray(a, float) * np.asarray(b, float)) for a, b in zip(values(u), values(v), strict=True)]
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "fn",
    [
        jax.nn.relu6,
        jax.nn.hard_tanh,
        jax.nn.gelu,
        lambda x: jnp.clip(x, -1e3, 1e3),
        lambda x: x * (x > 1e-3),
        lambda x: jnp.sin(x) + 1e-3 * x,
        lambda x: jnp.where(x > 0, jnp.exp(x), 1.0),
        jax.nn.elu,
    ],
)
def test_others_are_not_mistaken(fn):
    function = elementwise(fn)
    assert function.name is None
    assert function.dual is not None


def test_kinks_are_read_off_the_program():
    assert elementwise(jax.nn.relu6).kinks == (0.0, 6.0)
    assert elementwise(jax.nn.softplus).kinks == ()
    safe = elementwise(lambda x: jnp.where(x == 2, 1.0, jnp.cos(x) * jnp.tanh(x)))
    assert safe.kinks == ()
    both = elementwise(lambda x: jnp.abs(x - 0.1) + jnp.where(x > 3, 1.0, 0.0))
    np.testing.assert_allclose(both.kinks, (0.1, 3.0), rtol=1e-5)
    np.testing.assert_allclose(both.jumps, (0.0, 1.0), atol=1e-5)
    np.testing.assert_allclose(both.slope_jumps, (2.0, 0.0), atol=1e-5)


@pytest.mark.parametrize("fn", [jnp.floor, jnp.round, lambda x: x % 1.0, lambda x: x.astype(int).astype(float)])
def test_stairs_are_refused(fn):
    with pytest.raises(NotImplementedError, match="infinitely many jumps"):
        elementwise(fn)


@pytest.mark.parametrize("fn", [lambda x: 1 / x, lambda x: jnp.log(jnp.abs(x)), jnp.log])
def test_functions_that_are_not_finite_are_refused(fn):
    with pytest.raises(NotImplementedError, match="infinite or undefined"):
        elementwise(fn)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jax.nn.sigmoid(200 * (x - 1)),
        lambda x: jnp.exp(-((x - 1.3) ** 2) / 2 / 0.01**2),
        lambda x: x + jnp.sin(60 * x),
        lambda x: jnp.sqrt(jnp.abs(x)),  # the slope of which has no second moment
        lambda x: jnp.exp(x**2 / 2),
    ],
)
def test_functions_that_the_series_does_not_resolve_are_refused(fn):
    function, pairs = elementwise(fn), nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    for slope in (False, True):
        with pytest.raises(NotImplementedError, match="too steep"):
            second_moment(function, function, pairs, slope=slope)
        with pytest.raises(NotImplementedError, match="too steep"):
            second_moment(function, elementwise(jnp.tanh), pairs, slope=slope)


def test_means_of_fast_waves(x64):
    wave = elementwise(lambda x: jnp.sin(30 * x) ** 2)
    variances = jnp.array([0.0, 1e-3, 0.3, 1.0])
    np.testing.assert_allclose(mean(wave, variances), -np.expm1(-1800 * np.asarray(variances)) / 2, atol=1e-6)
    with pytest.raises(NotImplementedError, match="too steep"):
        mean(elementwise(lambda x: jnp.exp(-((x - 1.3) ** 2) / 2 / 0.01**2)), variances)


@pytest.mark.parametrize(("rate", "phase"), [(25.0, 0.0), (30.0, 0.3), (1000.0, 1.5), (1e-3, 0.4)])
def test_waves_of_any_rate_are_recognised(rate, phase):
    function = elementwise(lambda x: 2 * jnp.sin(rate * x + phase))
    assert function.name is not None
    assert function.name.split("(")[0] == "sin"
    assert function.dual is not None
    rho = np.array([0.999, 0.5, -0.2])
    pairs = nngp.pair_covariance(jnp.ones(3), jnp.ones(3), jnp.asarray(rho, jnp.float32))
    got = function.dual.kernel(pairs).covariance, function.dual.derivative(pairs)
    like, opposite = (2 * np.exp(-(rate**2) * (1 - sign * rho)) for sign in (1, -1))
    opposite = opposite * np.cos(2 * phase)
    np.testing.assert_allclose(got[0], like - opposite, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got[1], rate**2 * (like + opposite), rtol=1e-3, atol=1e-5)


# JAX's function, NumPy's, its slope
_FAST = {
    "waves": (
        lambda x: jnp.sin(5 * x) + jnp.cos(7 * x),
        lambda x: np.sin(5 * x) + np.cos(7 * x),
        lambda x: 5 * np.cos(5 * x) - 7 * np.sin(7 * x),
    ),
    "snake": (
        lambda x: x + jnp.sin(10 * x) ** 2 / 10,
        lambda x: x + np.sin(10 * x) ** 2 / 10,
        lambda x: 1 + np.sin(20 * x),
    ),
    "steep": (lambda x: jnp.tanh(5 * x), lambda x: np.tanh(5 * x), lambda x: 5 / np.cosh(5 * x) ** 2),
}


@pytest.mark.parametrize("name", list(_FAST))
def test_steep_and_fast_functions_have_longer_series(x64, name):
    fn, value, slope = _FAST[name]
    function = elementwise(fn)
    dual = function.dual
    assert dual is not None
    assert function.accuracy.num_terms > 64
    rho = np.array([0.5, 0.9, 0.99, 1.0])
    variances = jnp.ones(4)
    pairs = nngp.pair_covariance(variances, variances, jnp.asarray(rho))
    got = jax.jit(lambda p: (dual.kernel(p).covariance, dual.derivative(p)))(pairs)
    for numbers, f, tolerance in zip(got, (value, slope), (1e-3, 1e-2), strict=True):
        exact = [_fine_product(f, r) for r in rho]
        np.testing.assert_allclose(numbers, exact, atol=tolerance * exact[-1], rtol=0)


def _fine_product(f, rho):
    """Mean product at variances 1 from two independent normals, by the rectangle rule, exact for smooth functions."""
    x = np.linspace(-8, 8, 1601)
    weights = np.exp(-(x**2) / 2) * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    if rho == 1:
        return weights @ f(x) ** 2
    return weights @ (f(x) * (f(rho * x[:, None] + np.sqrt(1 - rho**2) * x) @ weights))


@pytest.mark.slow
def test_moments_are_not_numbers_where_a_variance_is_too_large():
    wave = elementwise(lambda x: x + jnp.sin(x))
    assert wave.dual is not None
    variances = jnp.array([0.0, 1.0, 4.0, 1e8])
    pairs = nngp.pair_covariance(variances, variances, 0.5 * variances)
    for moments in (
        wave.dual.kernel(pairs).covariance,
        wave.dual.derivative(pairs),
        second_moment(wave, elementwise(lambda x: x), pairs),
    ):
        assert list(np.isnan(moments)) == [False, False, False, True]


def test_unresolved_functions_with_parameters_are_not_numbers(x64):
    """A wave that is too fast, of a normalised Gaussian."""
    ones = jnp.ones(3)
    pairs = nngp.pair_covariance(ones, ones, jnp.array([0.5, 0.9, 1.0]))

    @jax.jit
    def moments(pairs, scale):
        wave = elementwise(lambda u, r: jnp.sin(r * u), 1)
        return [second_moment(wave, wave, pairs, (scale,), (scale,), slope) for slope in (False, True)]

    slow, fast = moments(pairs, 3 * ones), moments(pairs, 30 * ones)
    np.testing.assert_allclose(slow[0], [np.exp(-9) * np.sinh(9 * r) for r in (0.5, 0.9, 1.0)], rtol=1e-4)
    assert np.isnan(np.stack(fast)).all()


def test_functions_are_recognised_while_tracing():
    names = []

    @jax.jit
    def program(x):
        names.append(elementwise(lambda u: jnp.maximum(u, 0)).name)
        return x

    program(1.0)
    assert names == ["relu"]


@pytest.mark.slow
def test_functions_of_two_gaussians(x64):
    """relu(relu(u) + w) against quadrature over u, v and w, where x is integrated exactly."""
    function = elementwise(lambda u, w: _relu(_relu(u) + w), 1)
    cases = np.array([(0.0, 0.0), (0.5, -0.5), (0.9, 0.6), (0.99, 0.99), (1.0, 1.0)])
    a, b = 1.0, 0.6
    first, second = (
        nngp.PairCovariance(jnp.full(5, q), jnp.full(5, q), q * jnp.asarray(r), 1 - jnp.asarray(r) ** 2)
        for q, r in zip((a, b), cases.T, strict=True)
    )

    @jax.jit
    def moments(first, second):
        average = plane_mean(function, first.variance1, second.variance1)
        values = [plane_second_moment(function, function, first, second, along=along) for along in (None, 0, 1)]
        return average, *values

    average, *got = moments(first, second)
    exact = np.array([_plane_products(a, b, *case) for case in cases])
    np.testing.assert_allclose(got[0], exact[:, 0], rtol=1e-5)
    np.testing.assert_allclose(np.stack(got[1:], 1), exact[:, 1:], rtol=1e-3)
    np.testing.assert_allclose(np.stack(got, 1)[-1], exact[-1], rtol=1e-8)
    np.testing.assert_allclose(average[0] ** 2, exact[0, 0], rtol=1e-8)


def _plane_products(q1, q2, rho1, rho2):
    a, b = np.sqrt(q1), np.sqrt(q2)
    rest1, rest2 = np.sqrt(1 - rho1**2), max(np.sqrt(1 - rho2**2), 1e-12)
    total = np.zeros(3)
    for node, weight in zip(*_panels([0.0]), strict=True):
        inner, inner_weights = _panels([-rho1 * node / rest1]) if rest1 else (np.zeros(1), np.ones(1))
        u, v = a * node, a * (rho1 * node + rest1 * inner)
        across, across_weights = _panels([-max(u, 0.0) / b])
        f = np.maximum(max(u, 0.0) + b * across, 0.0)
        on = across_weights * (f > 0)
        shift = (np.maximum(v, 0.0)[:, None] / b + rho2 * across[None, :]) / rest2
        tail = (1 + erf(shift / np.sqrt(2))) / 2
        ramp = b * rest2 * (shift * tail + np.exp(-(shift**2) / 2) / np.sqrt(2 * np.pi))
        total += weight * np.array(
            [
                inner_weights @ ramp @ (across_weights * f),
                (u > 0) * ((inner_weights * (v > 0)) @ tail @ on),
                inner_weights @ tail @ on,
            ]
        )
    return total
