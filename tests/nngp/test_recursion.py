"""Kernels of wide networks: the recursion, single precision at depth, gradients where the kernel has corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import nngp
from dltheory.ntk import analytic_ntk
from tests.nngp.oracles import mean_product, mean_square

pytestmark = pytest.mark.usefixtures("optimized")  # rounding is that of a user's program
RECURSION = pytest.mark.statement("nngp.kernel_recursion")
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(5, 3))


def _network(activation, depth, sigma_b=0.1, sigma_w=2**0.5):
    settings = {"depth": depth, "sigma_w": sigma_w, "sigma_b": sigma_b, "activation": activation}
    return jax.jit(lambda x1, x2=None: analytic_ntk(x1, x2, **settings))


def _textbook_relu(x1, x2, depth, sigma_w, sigma_b):
    """The recursion as books print it, in double precision."""
    w, b = sigma_w**2, sigma_b**2
    q1, q2 = w * np.mean(x1**2, 1)[:, None] + b, w * np.mean(x2**2, 1)[None] + b
    kernel = w * x1 @ x2.T / x1.shape[1] + b
    tangent = kernel
    for _ in range(depth):
        size = np.sqrt(q1 * q2)
        angle = np.arccos(np.clip(kernel / size, -1, 1))
        kernel = w * size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi) + b
        tangent = kernel + tangent * w * (np.pi - angle) / (2 * np.pi)
        q1, q2 = w * q1 / 2 + b, w * q2 / 2 + b
    return kernel, tangent


@RECURSION
@pytest.mark.statement("nngp.clt_limit")
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_relu_networks_follow_the_textbook(depth, x64):
    found = _network("relu", depth)(jnp.asarray(X[:3]), jnp.asarray(X[3:]))
    for ours, theirs in zip(found, _textbook_relu(X[:3], X[3:], depth, 2**0.5, 0.1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.slow
@RECURSION
def test_tanh_networks_follow_quadrature(x64):
    kernel = 1.5**2 * X[:2] @ X[:2].T / 3 + 0.01
    tangent = kernel
    for _ in range(2):
        q1, q2, rho = kernel[0, 0], kernel[1, 1], kernel[0, 1] / np.sqrt(kernel[0, 0] * kernel[1, 1])
        slope = mean_product(lambda x: 1 / np.cosh(x) ** 2, q1, q2, rho)
        cross = mean_product(np.tanh, q1, q2, rho)
        kernel = np.array([[mean_square(np.tanh, q1), cross], [cross, mean_square(np.tanh, q2)]]) * 1.5**2 + 0.01
        tangent = kernel[0, 1] + 1.5**2 * slope * (tangent if np.ndim(tangent) == 0 else tangent[0, 1])
    found = _network("tanh", 2, sigma_w=1.5)(jnp.asarray(X[:2]))
    np.testing.assert_allclose(found[0], kernel, rtol=1e-8)
    np.testing.assert_allclose(found[1][0, 1], tangent, rtol=1e-8)


def _hard_inputs(d):
    """Random inputs, and copies of one of them: exact, shifted by little, scaled, opposite."""
    rng = np.random.default_rng(d)
    base = rng.normal(size=(6, d))
    shifts = [base[0] + size * rng.normal(size=d) for size in (0, 1e-7, 1e-5, 1e-3, 1e-2)]
    return np.concatenate([base, shifts, [2 * base[0], -base[0]]]).astype(np.float32)


@RECURSION
@pytest.mark.parametrize(
    ("activation", "d"),
    [("relu", 7), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [("relu", 200), ("erf", 7), ("erf", 200)])],
)
def test_single_precision_is_accurate_at_depth_20(activation, d, x64):
    x = _hard_inputs(d)
    network = _network(activation, 20)
    for pair in ((x,), (x, x[::-1])):
        single = network(*(jnp.asarray(a) for a in pair))
        double = network(*(jnp.asarray(a, jnp.float64) for a in pair))
        for low, high in zip(single, double, strict=True):
            assert low.dtype == jnp.float32
            # Entries of nearly orthogonal inputs of an odd activation are small beside the variances.
            np.testing.assert_allclose(low, high, rtol=0, atol=1e-5 * np.abs(high).max())


@RECURSION
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_kernels_are_finite_symmetric_and_positive(activation):
    x = _hard_inputs(3)
    x = np.concatenate([x, np.zeros((1, 3), np.float32), 1e6 * x[:2]])
    for kernel in _network(activation, 3)(jnp.asarray(x)):
        kernel = np.asarray(kernel, np.float64)
        assert np.all(np.isfinite(kernel))
        size = np.sqrt(np.diag(kernel))
        assert np.all(np.abs(kernel - kernel.T) <= 1e-6 * np.outer(size, size))
        small = kernel[:-2, :-2]
        assert np.linalg.eigvalsh(small).min() > -2e-6 * np.linalg.eigvalsh(small).max()


@RECURSION
@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), pytest.param("gelu", 1, marks=pytest.mark.slow)])
def test_gradients_are_finite_at_equal_zero_and_opposite_inputs(activation, depth):
    def total(x1, x2, sigma_b):
        return sum(map(jnp.sum, analytic_ntk(x1, x2, depth=depth, sigma_w=1.3, sigma_b=sigma_b, activation=activation)))

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
    x1 = jnp.asarray(X, jnp.float32)
    x2 = jnp.concatenate([x1[:2], -x1[:1], jnp.zeros((1, 3))])
    for sigma_b in (0.0, 0.1):
        assert all(np.all(np.isfinite(part)) for part in gradient(x1, x2, sigma_b))


@RECURSION
def test_gradient_with_respect_to_the_scales(x64):
    def total(sigma_w, sigma_b):
        return jnp.sum(analytic_ntk(jnp.asarray(X), depth=2, sigma_w=sigma_w, sigma_b=sigma_b, activation="relu")[1])

    valued = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    step = 1e-5
    gradient, value = valued(1.3, 0.2)[1], lambda *scales: valued(*scales)[0]
    numeric = (value(1.3 + step, 0.2) - value(1.3 - step, 0.2)), (value(1.3, 0.2 + step) - value(1.3, 0.2 - step))
    np.testing.assert_allclose(gradient, np.array(numeric) / (2 * step), rtol=1e-7)


@RECURSION
def test_settings_are_checked():
    with pytest.raises(ValueError, match="`depth`"):
        nngp.kernel(jnp.ones((2, 3)), depth=-1, sigma_w=1.0, sigma_b=0.0, activation="relu")
    with pytest.raises(ValueError, match="`activation`"):
        nngp.kernel(jnp.ones((2, 3)), depth=1, sigma_w=1.0, sigma_b=0.0, activation="rleu")


@pytest.mark.statement("nngp.linear_layer")
@pytest.mark.parametrize("d", [3, 200])
def test_input_covariance_keeps_small_angles(d, x64):
    x = _hard_inputs(d).astype(np.float64)
    found = jax.jit(nngp.input_covariance)(jnp.asarray(x, jnp.float32), jnp.asarray(x[:4], jnp.float32))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    difference = unit[:, None] - unit[None, :4]
    opposite = unit[:, None] + unit[None, :4]
    gap = np.minimum(np.sum(difference**2, -1), np.sum(opposite**2, -1)) / 2
    np.testing.assert_allclose(np.sqrt(found.residual), np.sqrt(gap * (2 - gap)), rtol=2e-4, atol=2e-7)
    np.testing.assert_allclose(found.covariance, x @ x[:4].T / d, rtol=1e-5, atol=1e-6)


@pytest.mark.statement("nngp.linear_layer")
def test_linear_kernel_is_the_scaled_gram_matrix(x64):
    np.testing.assert_allclose(nngp.linear_kernel(jnp.asarray(X), gamma=1.3), 1.3**2 * X @ X.T / 3, rtol=1e-14)


@pytest.mark.statement("nngp.linear_layer")
def test_affine_covariance_equals_its_parts(x64):
    q1, q2, c = np.array([0.7, 2.0]), np.array([1.5, 2.0]), np.array([-0.9, 1.9])

    @jax.jit
    def affine(*moments):
        pairs = nngp.affine_covariance(nngp.pair_covariance(*moments), 1.3, 0.4)
        return pairs, nngp.half_squared_distance(pairs)

    pairs, distance = affine(q1, q2, c)
    a, b, k = 1.3**2 * q1 + 0.16, 1.3**2 * q2 + 0.16, 1.3**2 * c + 0.16
    np.testing.assert_allclose(pairs.covariance, k, rtol=1e-14)
    np.testing.assert_allclose(pairs.residual, 1 - k**2 / (a * b), rtol=1e-12)
    np.testing.assert_allclose(distance, (a + b) / 2 - k, rtol=1e-12)
