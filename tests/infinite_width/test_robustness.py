"""Kernels at inputs that are zero, equal, opposite and large: finite, symmetric, positive, with finite gradients."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width, networks

pytestmark = pytest.mark.statement("nngp.kernel_recursion")


class Normalised(nn.Module):
    """Normalisation between a smooth function and one with a kink, and a skip connection."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Dense(32)(x))
        x = x + nn.Dense(32)(nn.tanh(x))
        return nn.Dense(1)(nn.relu(nn.RMSNorm()(x)))


class Pooled(nn.Module):
    """Convolutions with pooling in between and at the end."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), 4, 3, 1)
        x = nn.avg_pool(nn.relu(nn.Conv(8, (3, 3))(x)), (2, 1), (2, 1))
        return nn.Dense(1)(nn.relu(nn.Conv(8, (3, 3))(x)).mean((1, 2)))


# Sums of branches and pooled positions remember less of how near two inputs are: module, variances, accuracy.
NETS = {
    "layers with biases": (networks.MLP((16, 16, 16, 1), sigma_w=1.4, sigma_b=0.2), 1.0, 1e-5),
    "normalised": (Normalised(), None, 2e-4),
    "pooled": (Pooled(), None, 2e-4),
}


def _inputs():
    """Ordinary inputs, copies of one of them (exact, near, scaled, opposite), and zero."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 12))
    near = [base[0] + size * rng.normal(size=12) for size in (0, 1e-6, 1e-3)]
    return np.concatenate([base, near, [2 * base[0], -base[0], 0 * base[0]]]).astype(np.float32)


def _kernel(name):
    module, param_variance, _ = NETS[name]
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 12)))
    return infinite_width.kernel_fn(module.apply, params, param_variance=param_variance)


NAMES = [pytest.param(name, marks=[] if name == "layers with biases" else [pytest.mark.slow]) for name in NETS]


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_covariances_that_scale_and_have_gradients(name):
    x = jnp.asarray(_inputs())
    kernel = _kernel(name)

    def total(x1, x2):
        return sum(jnp.sum(k) for k in kernel(x1, x2))

    found, large, gradients = jax.jit(lambda x: (kernel(x), kernel(1e6 * x), jax.grad(total, (0, 1))(x, x)))(x)
    for matrix in found:
        matrix = np.asarray(matrix, np.float64)
        assert np.all(np.isfinite(matrix))
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=NETS[name][2] * matrix.max())
        assert np.linalg.eigvalsh(matrix).min() > -NETS[name][2] * np.linalg.eigvalsh(matrix).max()
        assert matrix[0, 0] == pytest.approx(matrix[0, 3], rel=NETS[name][2])  # an exact copy
    assert all(np.all(np.isfinite(k)) for k in large)
    assert all(np.all(np.isfinite(g)) for g in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_that_of_double_precision(name, x64):
    """Also where inputs nearly coincide, which is where an angle loses half of its digits."""
    x, kernel = _inputs(), jax.jit(_kernel(name))
    for low, high in zip(kernel(jnp.asarray(x)), kernel(jnp.asarray(x, float)), strict=True):
        assert low.dtype == jnp.float32
        np.testing.assert_allclose(low, high, rtol=0, atol=NETS[name][2] * np.abs(high).max())


class Activated(nn.Module):
    """One hidden layer of a function, and a skip connection around it."""

    function: Callable[..., Any]

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, use_bias=False)(x)
        return nn.Dense(1, use_bias=False)(x + nn.Dense(16, use_bias=False)(self.function(x)))


# One of every kind: kinked, even, with a jump, in closed form, of light and heavy tails, saturating, pieced together.
ACTIVATIONS = {
    "leaky relu": nn.leaky_relu,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "erf": jax.lax.erf,
    "gelu by tanh": nn.gelu,
    "sigmoid": nn.sigmoid,
    "cubic": lambda x: x - 0.1 * x**3,
    "exp": jnp.exp,
    "user-written": lambda x: jnp.where(x > 1, x, jnp.tanh(x)),
}
DEAR = {"sigmoid", "user-written"}  # to differentiate; "gelu by tanh" is
GROWING = {"cubic": 1e3, "exp": 1.0}  # the largest inputs whose kernels are numbers


def _require_sound(name, dtype):
    """Zero, equal, opposite, near and large inputs, with gradients by both arguments."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4))
    size = GROWING.get(name, 1e6)
    x = jnp.asarray(np.stack([a, b, a, -a, a + 1e-4 * b, 0 * a, size * a, -size * a, size * b]), dtype)
    module = Activated(ACTIVATIONS[name])
    kernel = infinite_width.kernel_fn(module.apply, jax.eval_shape(module.init, jax.random.key(0), x))

    def total(x1, x2):
        kernels = kernel(x1, x2)
        return sum(jnp.sum(k) for k in kernels), kernels

    if name in DEAR:
        kernels = jax.jit(kernel)(x, x)
    else:
        gradients, kernels = jax.jit(jax.grad(total, (0, 1), has_aux=True))(x, x)
        assert all(np.all(np.isfinite(g)) for g in gradients)
    for matrix in kernels:
        assert matrix.dtype == dtype
        matrix = np.asarray(matrix, np.float64)
        assert np.all(np.isfinite(matrix))
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-12))
        matrix = matrix / np.outer(scale, scale)
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-5)
        assert np.linalg.eigvalsh(matrix).min() > -3e-5
        np.testing.assert_allclose(matrix[0], matrix[2], rtol=0, atol=1e-5)  # copies


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_kind_of_activation_at_hard_inputs(name, unoptimized):
    _require_sound(name, "float32")


@pytest.mark.slow
def test_hard_inputs_in_double_precision(unoptimized, x64):
    _require_sound("sigmoid", "float64")
