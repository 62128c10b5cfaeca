"""Kernels of inputs of any size, whose pre-activations have variances from 1e-12 to 1e12."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dltheory import infinite_width, nngp
from dltheory.infinite_width._functions import elementwise
from dltheory.infinite_width._pairs import mean, second_moment
from tests.nngp.oracles import mean_product_at_any_variance

pytestmark = [
    pytest.mark.statement("nngp.kernel_recursion", "infinite_width.architecture_universality"),
    pytest.mark.usefixtures("unoptimized"),
]


def _sech2(x):
    return 1 / np.cosh(np.clip(x, -300, 300)) ** 2


def _lopsided(x):
    return jnp.where(x > -1, jnp.arctan(x + 1), 0.3 * (x + 1))


# In JAX, in NumPy, the slope, its kinks.
FUNCTIONS = {
    "tanh": (jnp.tanh, np.tanh, _sech2, ()),
    "silu": (
        nn.silu,
        lambda x: x * special.expit(x),
        lambda x: special.expit(x) * (1 + x * special.expit(-x)),
        (),
    ),
    "hard tanh": (nn.hard_tanh, lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (np.abs(x) < 1), (-1.0, 1.0)),
    "lopsided": (
        _lopsided,
        lambda x: np.where(x > -1, np.arctan(x + 1), 0.3 * (x + 1)),
        lambda x: np.where(x > -1, 1 / (1 + (x + 1) ** 2), 0.3),
        (-1.0,),
    ),
}


class Net(nn.Module):
    """Hidden layers without biases."""

    name_of_function: str
    depth: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = FUNCTIONS[self.name_of_function][0](nn.Dense(16, use_bias=False)(x))
        return nn.Dense(1, use_bias=False)(x)


def _kernel(name, depth=2):
    net = Net(name, depth)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 6)))
    return infinite_width.kernel_fn(net.apply, params)


def _inputs():
    """Ordinary inputs, small and large ones, parallel, near and opposite ones, and zero."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6))
    near = 1e6 * (a + 1e-4 * b)
    return np.stack([b, 1e-6 * a, 1e6 * a, near, -1e6 * a, 0 * a]).astype(np.float32).astype(float)


def _recursion(name, x):
    """Both kernels by brute force."""
    _, phi, slope, kinks = FUNCTIONS[name]
    units = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    gaps = np.array([[np.sum((a - b) ** 2) / 2 for b in units] for a in units])
    covariance, residual = x @ x.T / x.shape[1], gaps * (2 - gaps)
    tangent = covariance
    for _ in range(2):
        variance = np.diag(covariance)
        both = np.empty((2, *covariance.shape))
        for i in range(len(x)):
            for j in range(i + 1):
                for k, f in enumerate((phi, slope)):
                    both[k, i, j] = both[k, j, i] = _moment(
                        f, variance[i], variance[j], covariance[i, j], residual[i, j], kinks
                    )
        covariance = both[0]
        tangent = covariance + both[1] * tangent
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        rho = covariance / np.where(size > 0, size, 1.0)
        residual = np.where(size > 0, np.maximum((1 - rho) * (1 + rho), 0.0), 1.0)
    return covariance, tangent


def _moment(f, q1, q2, covariance, residual, kinks):
    if min(q1, q2) == 0:
        own = f(np.float64(0.0))
        return own * (f(np.float64(0.0)) if max(q1, q2) == 0 else _average(f, max(q1, q2), kinks))
    rho = np.clip(covariance / np.sqrt(q1 * q2), -1, 1)
    return mean_product_at_any_variance(f, f, q1, q2, rho, 0.0 if residual < 1e-14 else residual, kinks)


def _average(f, q, kinks):
    return mean_product_at_any_variance(f, np.ones_like, q, q, 1.0, 0.0, kinks)


@pytest.mark.slow
def test_kernels_are_those_of_brute_force(x64):
    x, kernel = _inputs(), jax.jit(_kernel("tanh"))
    exact = _recursion("tanh", x)
    for dtype, tolerance in ((jnp.float64, 1e-7), (jnp.float32, 2e-5)):
        for found, expected in zip(kernel(jnp.asarray(x, dtype)), exact, strict=True):
            found = np.asarray(found, np.float64)
            size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
            scale = np.where(size > 0, size, 1.0)
            np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=tolerance)
            np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-6 * np.max(scale))
            assert np.linalg.eigvalsh(found / scale).min() > -tolerance


@pytest.mark.slow
def test_single_precision_alone():
    """Where there is no double precision to find out with what a function is like."""
    x, kernel = _inputs(), jax.jit(_kernel("silu"))
    for found, expected in zip(kernel(jnp.asarray(x, jnp.float32)), _recursion("silu", x), strict=True):
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        scale = np.where(scale > 0, scale, 1.0)
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_gradients_are_finite(x64):
    """At equal, opposite, parallel, near and zero inputs, of all sizes at once."""
    kernel, x = _kernel("tanh", depth=1), _inputs()
    rng = np.random.default_rng(1)
    directions = jnp.asarray(rng.normal(size=x.shape) * np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3))
    weights = rng.normal(size=(len(x), len(x)))

    @jax.jit
    @jax.grad
    def slopes(steps):
        moved = (jnp.asarray(x) + step * directions for step in steps)
        return sum(jnp.sum(weights * k) for k in kernel(*moved))

    assert np.all(np.isfinite(slopes(jnp.zeros(2))))


@pytest.mark.slow
def test_different_functions_at_any_variance(x64):
    f, g = "lopsided", "hard tanh"
    pairs = np.array(
        [
            (1e-12, 4.0, 0.6, 0.64),
            (30.0, 1e6, -0.8, 0.36),
            (1e6, 1e6, np.sqrt(1 - 1e-6), 1e-6),
            (1e12, 1e2, 0.28, 0.9216),
            (1e12, 1e12, 1.0, 0.0),
            (30.0, 30.0, -1.0, 0.0),
        ]
    )
    one, two = elementwise(FUNCTIONS[f][0]), elementwise(FUNCTIONS[g][0])
    q1, q2, rho, residual = pairs.T
    kinks = (*FUNCTIONS[f][3], *FUNCTIONS[g][3])
    moments = (jnp.asarray(v) for v in (q1, q2, rho * np.sqrt(q1) * np.sqrt(q2), residual))
    both = jax.jit(lambda p: [second_moment(one, two, p, slope=slope) for slope in (False, True)])
    found = both(nngp.PairCovariance(*moments))
    for i, values in enumerate(found, start=1):
        left, right = FUNCTIONS[f][i], FUNCTIONS[g][i]
        exact = [mean_product_at_any_variance(left, right, a, b, r, rest, kinks) for a, b, r, rest in pairs]
        sizes = [
            np.sqrt(
                mean_product_at_any_variance(left, left, a, a, 1.0, 0.0, kinks)
                * mean_product_at_any_variance(right, right, b, b, 1.0, 0.0, kinks)
            )
            for a, b, *_ in pairs
        ]
        np.testing.assert_allclose(values / np.array(sizes), np.array(exact) / sizes, rtol=0, atol=2e-9)


@pytest.mark.slow
def test_means_at_any_variance(x64):
    squash = elementwise(lambda x: nn.sigmoid(x - 1))
    variances = jnp.array([0.0, 1e-6, 1.0, 1e3, 1e8])

    def exact(q):
        return _average(lambda x: special.expit(x - 1), q, ()) if q else special.expit(-1)

    value, slope = jax.jit(lambda q: (mean(squash, q), jax.grad(lambda q: jnp.sum(mean(squash, q)))(q)))(variances)
    np.testing.assert_allclose(value, [exact(q) for q in np.asarray(variances)], rtol=1e-9)
    step = 1e-4 * np.asarray(variances[2:])
    differences = [
        (exact(q + h) - exact(q - h)) / (2 * h) for q, h in zip(np.asarray(variances[2:]), step, strict=True)
    ]
    np.testing.assert_allclose(slope[2:], differences, rtol=1e-5)
    assert mean(squash, jnp.float32(1e8)) == pytest.approx(exact(1e8), rel=1e-5)
